//! The committed transcripts are what is said today.
#![allow(clippy::unwrap_used)]

use synclayer_sim::data;
use synclayer_sim::transcript::{first_difference, play_all, strangers};

/// After a change that is meant: `cargo run -p synclayer-sim -- transcript --write`, and read the
/// diff.
#[test]
fn the_transcripts_are_what_is_said() {
    let folder = data::path("transcripts");
    let played = play_all().unwrap();
    assert_eq!(played, play_all().unwrap(), "the same plays give the same texts");
    for one in &played {
        let committed = std::fs::read_to_string(folder.join(one.name)).unwrap();
        if let Some((line, was, is)) = first_difference(&committed, &one.text) {
            panic!("{} line {line}:\n  was  {was}\n  now  {is}", one.name);
        }
    }
    assert!(strangers(&folder, &played).unwrap().is_empty(), "every file has its play");
}

#[test]
fn a_difference_is_found_where_it_is() {
    assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
    let found = first_difference("a\nb\n", "a\nc\n");
    assert_eq!(found, Some((2, "b".into(), "c".into())));
    let longer = first_difference("a\n", "a\nb\n");
    assert_eq!(longer, Some((2, "(the end)".into(), "b".into())));
}
