//! Tests of the command line.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;
use crate::failure::Code;

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_exit_code_is_explained() {
    for code in 0..=Code::GivenUp as u8 {
        assert!(EXIT_CODES.contains(&format!("\n{code:3}  ")), "{code} is missing");
    }
}

#[test]
fn a_port_is_enough_to_listen_at() {
    for (text, address) in [
        ("8081", "127.0.0.1:8081"),
        ("localhost:8081", "127.0.0.1:8081"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("[::1]:8081", "[::1]:8081"),
    ] {
        assert_eq!(listen(text), Ok(address.parse().unwrap()), "{text}");
    }
    assert_eq!(listen("10.0.0.1"), Err("the port is missing: write 10.0.0.1:8080".to_owned()));
    assert_eq!(listen("::1"), Err("the port is missing: write [::1]:8080".to_owned()));
    for text in ["", ":8081", "app.example:8081", "localhost", "+1", "65536", "localhost:"] {
        assert!(listen(text).unwrap_err().contains("0.0.0.0:8080"), "{text}");
    }
}

#[test]
fn tokens_are_not_shown() {
    let line = ["synclayer", "serve", "--data", "d", "--token", "ann=s3cret=x"];
    let cli = Cli::try_parse_from(line).unwrap();
    assert!(!format!("{cli:?}").contains("s3cret"), "{cli:?}");
}

/// Every command that the README files and the guides show is one that the program takes. Those in which the shell
/// puts something else (`$(…)`) are left out.
#[test]
fn the_commands_in_the_texts_can_be_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let guides = fs::read_dir(root.join("adapters/tokio/guide")).unwrap();
    let mut pages: Vec<_> = guides.map(|page| page.unwrap().path()).collect();
    pages.extend(["README.md", "adapters/cli/README.md"].map(|page| root.join(page)));
    let mut commands = 0;
    for page in pages {
        for block in shell_blocks(&fs::read_to_string(&page).unwrap()) {
            // what is missing then comes from there, or from the file
            let elsewhere = ["export SYNCLAYER_", "--config "].map(|word| block.contains(word));
            for line in block.lines().filter(|line| is_whole_command(line)) {
                if let Err(error) = Cli::try_parse_from(words(line)) {
                    let missing = error.kind() == ErrorKind::MissingRequiredArgument;
                    assert!(
                        missing && elsewhere.contains(&true),
                        "{}: {line}\n{error}",
                        page.display()
                    );
                }
                commands += 1;
            }
        }
    }
    assert!(commands > 20, "only {commands} commands were found");
}

/// The blocks for a shell, in which a line that goes on behind a backslash is one.
fn shell_blocks(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(|block| block.replace("\\\n", " ")).collect()
}

fn is_whole_command(line: &str) -> bool {
    line.starts_with("synclayer ") && !line.contains("$(")
}

/// The words of a line, up to a comment, a redirection or the next command.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '#' | '>' | '<' | '|' | '&') if word.is_empty() => break,
            (None, ' ') => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            }
            _ => word.push(letter),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}
