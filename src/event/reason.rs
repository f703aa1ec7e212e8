//! Reduces rejections to their common reasons, so that each reason is reported once with its count.

use std::fmt;

use super::{RejectClass, Rejection};

/// Reason of a rejection, without the details of one record. Rejections that differ only in such details have equal
/// reasons.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RejectReason {
    class: RejectClass,
    text: String,
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Rejection {
    /// Returns the reason without the details of this record: quoted text, single numbers, and the advice after a
    /// semicolon.
    pub fn reason(&self) -> RejectReason {
        let mut text = String::with_capacity(self.message.len());
        let mut rest = self.message.chars().peekable();
        while let Some(next) = rest.next() {
            match next {
                ';' if rest.peek() == Some(&' ') => break,
                '"' => {
                    text.push_str("\"\u{2026}\"");
                    while let Some(quoted) = rest.next().filter(|quoted| *quoted != '"') {
                        // An escaped quotation mark does not end the text.
                        if quoted == '\\' {
                            rest.next();
                        }
                    }
                }
                '0'..='9' if text.ends_with([' ', '[', '(']) => {
                    let mut number = String::from(next);
                    while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                        number.push(digit);
                    }
                    // In `64-bit` and in `2nd` the number is a part of a word.
                    let is_word = rest.peek().is_some_and(|next| next.is_alphanumeric() || *next == '-');
                    text.push_str(if is_word { &number } else { "\u{2026}" });
                }
                other => text.push(other),
            }
        }
        RejectReason { class: self.class, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_no_details_of_one_record() {
        let reason = |message: &str| Rejection { class: RejectClass::Json, message: message.to_owned() }.reason();
        for (message, text) in [
            ("`time` \"03/01/2026\" is not a time; use RFC 3339", "`time` \"\u{2026}\" is not a time"),
            ("the value is \"x\\\"7; 8\", not \"9\"", "the value is \"\u{2026}\", not \"\u{2026}\""),
            ("it ends within \"abc", "it ends within \"\u{2026}\""),
            ("`values[17].x` has 300 bytes", "`values[\u{2026}].x` has \u{2026} bytes"),
            ("trailing characters at line 1 column 20", "trailing characters at line \u{2026} column \u{2026}"),
            ("`sensor2` is beyond the range of a 64-bit float", "`sensor2` is beyond the range of a 64-bit float"),
            ("", ""),
        ] {
            assert_eq!(reason(message).to_string(), text);
        }
        let shape = Rejection { class: RejectClass::Shape, message: String::new() };
        assert_ne!(shape.reason(), reason(""), "the class is a part of the reason");
    }
}
