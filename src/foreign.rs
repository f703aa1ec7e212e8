//! Foreign text: names, values and error texts from records, files, brokers, databases and browsers. All output to
//! people goes through this file. It truncates the text and gives its length. It escapes characters that move the
//! cursor, begin a line or change the writing direction.
//!
//! Nothing is escaped twice: the result contains no character that is escaped, and a backslash stays as it is. The
//! result is for people, not for programs that need the original text.

use std::fmt::{self, Write};
use std::path::Path;

/// Maximum number of characters of a name. Devices and metrics have at most 256 bytes, so only other names are
/// truncated.
const NAME: usize = 256;
/// Maximum number of characters of a value, a message or another text of any length.
const TEXT: usize = 1_000;

/// Foreign text. `Display` prints it escaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForeignText<'a> {
    bytes: &'a [u8],
    most: usize,
    keeps_lines: bool,
}

/// Prepares a name: of a device, topic, group, client, setting or column.
pub(crate) fn name(text: &str) -> ForeignText<'_> {
    bytes(text.as_bytes(), NAME)
}

/// Prepares the path of a file.
pub(crate) fn path(path: &Path) -> ForeignText<'_> {
    bytes(path.as_os_str().as_encoded_bytes(), TEXT)
}

/// Prepares a text of any length as one line, such as an error of a broker or a database.
pub(crate) fn text(text: &str) -> ForeignText<'_> {
    bytes(text.as_bytes(), TEXT)
}

/// Prepares bytes that should be text, as one line of at most `most` characters.
pub(crate) fn bytes(bytes: &[u8], most: usize) -> ForeignText<'_> {
    ForeignText { bytes, most, keeps_lines: false }
}

/// Prepares a text as one line without truncating it, because its author has truncated the foreign parts.
pub(crate) fn line(text: &str) -> ForeignText<'_> {
    bytes(text.as_bytes(), usize::MAX)
}

/// Prepares a text of several lines without truncating it. Its newlines and tabs stay.
pub(crate) fn lines(text: &str) -> ForeignText<'_> {
    ForeignText { keeps_lines: true, ..line(text) }
}

impl fmt::Display for ForeignText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.most;
        for chunk in self.bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                if left == 0 {
                    return self.cut(f);
                }
                left -= 1;
                match c {
                    '\n' | '\t' if self.keeps_lines => f.write_char(c)?,
                    '\n' | '\t' | '\r' => c.escape_default().fmt(f)?,
                    c if is_dangerous(c) => c.escape_unicode().fmt(f)?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                if left == 0 {
                    return self.cut(f);
                }
                left -= 1;
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl ForeignText<'_> {
    fn cut(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "… ({} bytes)", self.bytes.len())
    }
}

/// Returns whether a character must be escaped: control characters, line and paragraph separators, direction controls,
/// and invisible characters, which make two names look alike. The joiners U+200C and U+200D and the selectors U+FE0E
/// and U+FE0F stay, because Persian, Hindi and emoji need them.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_move_the_cursor_begin_a_line_or_turn_the_text_are_escaped() {
        let cases = [
            ("pump-0042", "pump-0042"),
            ("Pumpe Süd 3 °C 泵 مضخة", "Pumpe Süd 3 °C 泵 مضخة"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[31mred\u{7}\u{9b}", "\\u{1b}[31mred\\u{7}\\u{9b}"),
            ("gnp.\u{202e}exe", "gnp.\\u{202e}exe"),
            ("\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}", "\\u{2066}\\u{2069}\\u{200e}\\u{200f}\\u{61c}"),
            ("a\u{2028}b\u{200b}c\u{feff}", "a\\u{2028}b\\u{200b}c\\u{feff}"),
            ("a\u{3164}b\u{2800}c\u{34f}d", "a\\u{3164}b\\u{2800}c\\u{34f}d"),
            ("temp\u{fe00}\u{e0100}", "temp\\u{fe00}\\u{e0100}"),
            (
                "\u{2764}\u{fe0f} \u{646}\u{645}\u{6cc}\u{200c}\u{62e}",
                "\u{2764}\u{fe0f} \u{646}\u{645}\u{6cc}\u{200c}\u{62e}",
            ),
            ("C:\\new", "C:\\new"),
        ];
        for (foreign, shown) in cases {
            assert_eq!(name(foreign).to_string(), shown, "{foreign:?}");
            assert_eq!(line(shown).to_string(), shown, "what is shown is escaped again");
        }
        for c in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain('\0'..' ') {
            assert!(!name(&c.to_string()).to_string().contains(c), "{c:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_escaped_one_by_one() {
        assert_eq!(bytes(b"a\xff\xc3(\xe2\x82", 99).to_string(), "a\\xff\\xc3(\\xe2\\x82");
    }

    #[test]
    fn a_long_text_is_truncated_between_characters_and_its_length_is_given() {
        assert_eq!(bytes("äöü".as_bytes(), 2).to_string(), "äö… (6 bytes)");
        assert_eq!(bytes("äöü".as_bytes(), 3).to_string(), "äöü");
        assert_eq!(bytes(b"\xff\xff", 1).to_string(), "\\xff… (2 bytes)");
        let cell = "x".repeat(3_000_000);
        assert!(text(&cell).to_string().ends_with("… (3000000 bytes)"));
        assert!(text(&cell).to_string().len() < 1_100);
    }

    #[test]
    fn several_lines_keep_their_newlines_and_tabs_only() {
        assert_eq!(lines("a\n\tb\r\u{1b}").to_string(), "a\n\tb\\r\\u{1b}");
    }
}
