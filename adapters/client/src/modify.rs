//! Closures of the app that change a record in one step with reading it.

use serde::Serialize;
use synclayer_core::{Document, Limits, Misuse, Modify};

use crate::callback::caught;

/// The app's closure as the engine runs it: its outcome as a document, and a panic of it as an
/// error, so that the engine's thread goes on.
pub fn modification<T: Serialize>(
    change: impl FnOnce(Option<&Document>) -> Option<T> + Send + 'static,
    limits: &Limits,
) -> Modify {
    let limits = limits.clone();
    Box::new(move |document| {
        let made = caught(|| change(document).map(|made| Document::of(&made, &limits)).transpose());
        let made = made.map_err(|panic| Misuse::ModifyFailed {
            message: format!("the closure of `modify` has panicked: {panic}"),
        })?;
        Ok(made?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(change: impl FnOnce(Option<&Document>) -> Option<Odd> + Send + 'static) -> Misuse {
        modification(change, &Limits::default())(None).unwrap_err()
    }

    /// A value that is no object, or has no form at all.
    enum Odd {
        Number,
        Panics,
    }

    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Number => serializer.serialize_u8(7),
                Self::Panics => panic!("no form"),
            }
        }
    }

    #[test]
    fn what_a_closure_does_wrong_is_its_callers_error() {
        assert!(matches!(run(|_| Some(Odd::Number)), Misuse::Document(_)));
        for (error, text) in
            [(run(|_| Some(Odd::Panics)), "no form"), (run(|_| panic!("a bug")), "a bug")]
        {
            assert!(matches!(&error, Misuse::ModifyFailed { message } if message.contains(text)));
        }
        let gone = modification(|_| None::<Odd>, &Limits::default())(None);
        assert_eq!(gone, Ok(None));
    }
}
