//! Rust source text: where a piece of it stands, and in which function.

use std::ops::Range;

/// The text of a source file.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    text: String,
    /// The bodies of all functions that lie in no other function, braces included.
    bodies: Vec<Body>,
}

/// The body of a function, with its braces.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Body {
    at: Range<usize>,
    /// The blocks in it, where it returns a closure or an iterator without a name: then its end can
    /// have only one type.
    blocks: Vec<Range<usize>>,
}

impl Source {
    pub(crate) fn new(text: String) -> Self {
        let bodies = bodies(&blanked(&text));
        Self { text, bodies }
    }

    /// Returns the edits that put a text in the place of another, one for each place at which that
    /// occurs, white space apart. An edit is no longer than what differs between the two.
    pub(crate) fn edits(&self, text: &str, instead: &str) -> Vec<Edit> {
        let (here, there, by) = (visible(&self.text), visible(text), visible(instead));
        let (old, new) = (&there.letters, &by.letters);
        let head = old.iter().zip(new).take_while(|(old, new)| old == new).count();
        let rest = old.len().min(new.len()) - head;
        let tails = old.iter().rev().zip(new.iter().rev()).take(rest);
        let tail = tails.take_while(|(old, new)| old == new).count();
        // with the white space between what differs and what does not
        let between = |text: &Visible, start: usize, length: usize| {
            let from = if head > 0 { text.end_of(start + head) } else { text.start_of(start) };
            let (end, last) = (start + length, start + length - tail);
            from..if tail > 0 { text.start_of(last) } else { text.end_of(end).max(from) }
        };
        let edit = |start| Edit {
            at: between(&here, start, old.len()),
            new: instead[between(&by, 0, new.len())].to_owned(),
        };
        here.places(old).map(edit).collect()
    }

    /// Returns the body of the outermost function around a place; where it returns a type without
    /// a name, the innermost block.
    pub(crate) fn body_around(&self, place: &Range<usize>) -> Option<Range<usize>> {
        let holds = |it: &Range<usize>| it.start < place.start && place.end < it.end;
        let body = self.bodies.iter().find(|body| holds(&body.at))?;
        let block = body.blocks.iter().rev().find(|block| holds(block));
        Some(block.unwrap_or(&body.at).clone())
    }
}

/// A piece of a text, and what stands there instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Edit {
    pub(crate) at: Range<usize>,
    pub(crate) new: String,
}

/// The letters of a text that are no white space, and where each begins.
struct Visible {
    letters: Vec<char>,
    starts: Vec<usize>,
    length: usize,
}

fn visible(text: &str) -> Visible {
    let visible = text.char_indices().filter(|(_, letter)| !letter.is_whitespace());
    let (starts, letters) = visible.unzip();
    Visible { letters, starts, length: text.len() }
}

impl Visible {
    /// Where a letter begins.
    fn start_of(&self, letter: usize) -> usize {
        self.starts.get(letter).copied().unwrap_or(self.length)
    }

    /// Where the letter before this one ends.
    fn end_of(&self, letter: usize) -> usize {
        letter.checked_sub(1).map_or(0, |last| self.starts[last] + self.letters[last].len_utf8())
    }

    /// The first letters of the places at which these occur.
    fn places<'a>(&'a self, piece: &'a [char]) -> impl Iterator<Item = usize> + 'a {
        let windows = self.letters.windows(piece.len().max(1)).enumerate();
        windows.filter(move |(_, window)| *window == piece).map(|(start, _)| start)
    }
}

/// Returns a text of the same length in which comments and literals are spaces.
fn blanked(text: &str) -> String {
    let mut blank = text.to_owned().into_bytes();
    let mut at = 0;
    while at < text.len() {
        let length = literal(&text[at..]);
        if length == 0 {
            at += word(&text[at..]).max(1);
            continue;
        }
        blank[at..at + length].fill(b' ');
        at += length;
    }
    String::from_utf8(blank).expect("a comment or a literal is blanked whole")
}

/// Length of the comment or literal that a text begins with, or 0.
fn literal(text: &str) -> usize {
    let rest = text.trim_start_matches('b');
    let prefix = text.len() - rest.len();
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if prefix <= 1 && rest.starts_with('"') {
        return prefix + quoted(rest, '"');
    }
    if prefix <= 1 && rest.starts_with("r\"") || rest.starts_with("r#") {
        let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
        let open = 1 + hashes + 1;
        let close = format!("\"{}", "#".repeat(hashes));
        let is_raw = rest.as_bytes().get(open - 1) == Some(&b'"');
        let end = rest.get(open..).and_then(|inner| inner.find(&close));
        return end.filter(|_| is_raw).map_or(0, |end| prefix + open + end + close.len());
    }
    // not a lifetime: those have no second quote
    let mut letters = rest.strip_prefix('\'').unwrap_or_default().chars();
    match (letters.next(), letters.next()) {
        (Some('\\'), Some(_)) => prefix + quoted(rest, '\''),
        (Some(letter), Some('\'')) if letter != '\'' => prefix + 2 + letter.len_utf8(),
        _ => 0,
    }
}

/// Length of a literal between two quotes, with escapes in it.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the word that a text begins with, or of its first character.
fn word(text: &str) -> usize {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let length = text.find(|c| !is_letter(c)).unwrap_or(text.len());
    length.max(text.chars().next().map_or(0, char::len_utf8))
}

/// The bodies of the functions in a text whose comments and literals are blank.
fn bodies(text: &str) -> Vec<Body> {
    let (mut bodies, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let (length, name) = (word(&text[at..]).max(1), text[at..].trim_start_matches("fn"));
        let is_named = name.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '_');
        match (&text[at..at + length] == "fn" && is_named).then(|| body(text, at)).flatten() {
            Some(body) => {
                at = body.at.end;
                bodies.push(body);
            }
            None => at += length,
        }
    }
    bodies
}

/// The body of the function whose signature begins here; a declaration has none.
fn body(text: &str, signature: usize) -> Option<Body> {
    let mut depth = 0;
    for (at, letter) in text[signature..].char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => {
                let (signature, start) = (&text[signature..signature + at], signature + at);
                let whole = block(text, start)?;
                let inner = text[whole.clone()].match_indices('{').skip(1);
                let blocks = inner.filter_map(|(at, _)| block(text, start + at));
                let is_nameless = signature.contains("-> impl ");
                return Some(Body {
                    blocks: if is_nameless { blocks.collect() } else { Vec::new() },
                    at: whole,
                });
            }
            _ => {}
        }
    }
    None
}

/// The block that opens at a brace.
fn block(text: &str, open: usize) -> Option<Range<usize>> {
    let mut depth = 0;
    for (at, letter) in text[open..].char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(open..open + at + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(text.into())
    }

    fn edited(text: &str, old: &str, new: &str) -> Vec<String> {
        let apply = |edit: Edit| {
            let mut text = text.to_owned();
            text.replace_range(edit.at, &edit.new);
            text
        };
        source(text).edits(old, new).into_iter().map(apply).collect()
    }

    #[test]
    fn white_space_does_not_count() {
        let text = "fn a() {\n    f(\n        x, y\n    )\n}";
        assert_eq!(edited(text, "f( x,y )", "f(x)"), ["fn a() {\n    f(\n        x)\n}"]);
        assert_eq!(edited("fn ä() { 'ä' }", "'ä'", "'ö'"), ["fn ä() { 'ö' }"]);
        assert_eq!(edited("fn a() { x; x }", "x", "y").len(), 2);
        assert_eq!(edited("fn a() { x }", "y", "z").len(), 0);
    }

    #[test]
    fn an_edit_is_no_longer_than_the_difference() {
        let text = "fn a() -> u8 {\n    b\n}\n";
        let edits = source(text).edits("fn a() -> u8 {\n b", "fn a() -> u8 {\n return c;\n b");
        assert_eq!(edits, [Edit { at: 14..19, new: "\n return c;\n ".into() }]);
        assert_eq!(edited(text, "{ b }", "{ b b }"), ["fn a() -> u8 {\n    b b }\n"]);
        assert_eq!(edited(text, "b }", "}"), ["fn a() -> u8 {\n    }\n"]);
    }

    #[test]
    fn functions_have_bodies() {
        let text = r##"
            trait T { fn without(x: [u8; 2]); }
            const F: fn(u8) = f;
            fn f<'a>(x: &'a [u8; 2]) -> char { let _ = ("}", '}', b'"', r#""}"#); /* } */ '\'' } // {
            impl X { const fn g() { fn inner() { 1 } 2 } }
        "##;
        let source = source(text);
        let found: Vec<_> = source.bodies.iter().map(|body| &text[body.at.clone()]).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with(r"'\'' }"), "{found:?}");
        assert_eq!(found[1], "{ fn inner() { 1 } 2 }");
        let around = |old| source.body_around(&source.edits(old, "")[0].at);
        assert_eq!(around("1").as_ref(), Some(&source.bodies[1].at));
        assert_eq!(around("const F"), None);
    }

    #[test]
    fn a_type_without_a_name_is_chosen_in_the_innermost_block() {
        let text = "fn f() -> impl Fn() { if a { b } move || { c } }";
        let source = source(text);
        let block = |old| &text[source.body_around(&source.edits(old, "")[0].at).unwrap()];
        assert_eq!(block("c"), "{ c }");
        assert_eq!(block("b"), "{ b }");
        assert_eq!(block("move"), &text[20..]);
    }
}
