//! Reading choices off the bytes that a fuzzer makes up.

use synclayer_core::{Document, Limits};

/// The choices that are left. Where there are none left, every choice is the first one.
pub(super) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    /// A step: mostly one of the usual ones, below `end`, which divides 240; the seldom ones follow
    /// them, sixteen at most.
    pub(super) fn step(&mut self, end: usize) -> usize {
        match usize::from(self.byte()) {
            usual @ 0..240 => usual % end,
            seldom => end + seldom - 240,
        }
    }

    pub(super) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == one_in - 1
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let index = self.below(from.len());
        from.get(index).copied()
    }

    /// A number that is mostly small.
    pub(super) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..240 => u64::from(small % 16),
            240..250 => u64::from(self.byte()),
            250..253 => (1 << 53) - u64::from(self.byte() % 3),
            253.. => u64::MAX - u64::from(self.byte()),
        }
    }

    /// As many bytes as the first one says.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// A document of few fields and values; now and then one as the bytes have it.
    pub(super) fn document(&mut self) -> Document {
        if self.chance(16)
            && let Ok(text) = std::str::from_utf8(self.bytes())
            && let Ok(document) = Document::parse(text, &Limits::default())
        {
            return document;
        }
        let mut fields = Vec::new();
        for name in ["a", "b", "n", "t"] {
            let value = ["", "0", "1", "2", "null", "[]", "[1,2]", "{\"x\":1}"][self.below(8)];
            if !value.is_empty() {
                fields.push(format!("\"{name}\":{value}"));
            }
        }
        let text = format!("{{{}}}", fields.join(","));
        Document::parse(&text, &Limits::default()).expect("a document")
    }

    /// A text that differs from another in a few places.
    pub(super) fn mutated(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        for _ in 0..=self.below(3) {
            let at = (usize::from(self.byte()) << 8 | usize::from(self.byte())) % (frame.len() + 1);
            match self.below(5) {
                0 => frame.truncate(at),
                1 => frame.insert(at, self.byte()),
                2 if at < frame.len() => frame[at] = self.byte(),
                3 if at < frame.len() => {
                    let end = (at + self.below(16)).min(frame.len());
                    frame.drain(at..end);
                }
                // another number in place of the next one
                _ => {
                    let digit = |byte: &u8| byte.is_ascii_digit();
                    if let Some(from) = frame[at..].iter().position(digit).map(|i| at + i) {
                        let length = frame[from..].iter().take_while(|byte| digit(byte)).count();
                        let number = self.number().to_string();
                        frame.splice(from..from + length, number.into_bytes());
                    }
                }
            }
        }
        frame
    }
}
