//! The README's program is the example, which compiles.

#[test]
fn the_readme_shows_the_example() {
    let readme = include_str!("../../../README.md");
    let example = include_str!("../examples/todos.rs");
    assert!(
        readme.contains(&format!("```rust,no_run\n{example}```\n")),
        "copy the example to the README"
    );
}
