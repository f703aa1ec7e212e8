//! Splits a table into rows, and rows into cells. A quoted cell may contain delimiters, line ends, and quotes as two
//! quotes.

use std::borrow::Cow;

/// Maximum number of lines of a row. Otherwise a quote that is never closed would take the rest of the file.
pub(crate) const MAX_LINES: u64 = 100;

/// Possible delimiters before the header line determines one.
pub(crate) const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Why a row has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnendedRow {
    /// A quoted cell has more than [`MAX_LINES`] lines.
    TooManyLines,
    /// Text follows the closing quote of a cell of several lines.
    TextAfterQuote,
}

/// How far the current row was scanned.
#[derive(Debug, Default)]
pub(crate) struct RowScan {
    bytes: usize,
    is_quoted: bool,
    /// Number of line ends within quotes.
    lines: u64,
}

impl RowScan {
    /// Returns where the row at the beginning of `text` ends, before its line end; `None` if its end is not in `text`.
    ///
    /// # Errors
    /// Why it has no end.
    pub(crate) fn row(
        &mut self,
        text: &[u8],
        is_all: bool,
        separates: impl Fn(u8) -> bool,
        line_end: u8,
    ) -> Result<Option<usize>, UnendedRow> {
        while let Some(found) = memchr::memchr2(b'"', line_end, &text[self.bytes..]) {
            let at = self.bytes + found;
            if text[at] == line_end {
                if !self.is_quoted {
                    return Ok(Some(at));
                }
                self.lines += 1;
                if self.lines >= MAX_LINES {
                    return Err(UnendedRow::TooManyLines);
                }
            } else if self.is_quoted {
                match text.get(at + 1) {
                    // The next byte decides whether this quote closes the cell.
                    None if !is_all => {
                        self.bytes = at;
                        return Ok(None);
                    }
                    Some(b'"') => self.bytes = at + 2,
                    next => {
                        let closes = next.is_none_or(|byte| separates(*byte) || matches!(byte, b'\r' | b'\n' | b' '));
                        if self.lines > 0 && !closes {
                            return Err(UnendedRow::TextAfterQuote);
                        }
                        self.is_quoted = false;
                        self.bytes = at + 1;
                    }
                }
                continue;
            } else if at == 0 || separates(text[at - 1]) {
                self.is_quoted = true;
            }
            self.bytes = at + 1;
        }
        self.bytes = text.len();
        Ok((is_all && !self.is_quoted).then_some(text.len()))
    }
}

/// Iterates over the cells of one row; `None` for a cell with wrong quotes.
#[derive(Debug, Clone)]
pub(crate) struct Cells<'a> {
    rest: Option<&'a [u8]>,
    delimiter: u8,
}

impl<'a> Cells<'a> {
    /// Creates the iterator for a row without its line end.
    pub(crate) fn new(row: &'a [u8], delimiter: u8) -> Self {
        Cells { rest: Some(row), delimiter }
    }

    /// Skips a quoted cell after its opening quote.
    fn quoted(&mut self, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let mut inner = Cow::Borrowed(&text[..0]);
        let mut from = 0;
        loop {
            let at = from + memchr::memchr(b'"', &text[from..])?;
            let is_escape = text.get(at + 1) == Some(&b'"');
            let part = &text[from..at + usize::from(is_escape)];
            if inner.is_empty() {
                inner = Cow::Borrowed(part);
            } else {
                inner.to_mut().extend_from_slice(part);
            }
            if is_escape {
                from = at + 2;
                continue;
            }
            let after = &text[at + 1..];
            let end = memchr::memchr(self.delimiter, after);
            let space = &after[..end.unwrap_or(after.len())];
            self.rest = end.map(|end| &after[end + 1..]);
            return space.iter().all(|byte| *byte == b' ').then_some(inner);
        }
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = Option<Cow<'a, [u8]>>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.take()?;
        if let Some(text) = text.strip_prefix(b"\"") {
            return Some(self.quoted(text));
        }
        let end = memchr::memchr(self.delimiter, text);
        self.rest = end.map(|end| &text[end + 1..]);
        Some(Some(Cow::Borrowed(&text[..end.unwrap_or(text.len())])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(row: &str) -> Vec<Option<String>> {
        let text = |cell: Cow<'_, [u8]>| String::from_utf8(cell.into_owned()).unwrap();
        Cells::new(row.as_bytes(), b',').map(|cell| cell.map(text)).collect()
    }

    fn some(cells: &[&str]) -> Vec<Option<String>> {
        cells.iter().map(|cell| Some((*cell).to_owned())).collect()
    }

    #[test]
    fn cells_are_split_and_their_quotes_removed() {
        assert_eq!(cells("a,b,c"), some(&["a", "b", "c"]));
        assert_eq!(cells("a,,"), some(&["a", "", ""]));
        assert_eq!(cells(""), some(&[""]));
        assert_eq!(cells(r#""a,b","say ""so""","" ,5" pipe"#), some(&["a,b", "say \"so\"", "", "5\" pipe"]));
        assert_eq!(cells(r#""a"b,c"#), [None, Some("c".to_owned())]);
        assert_eq!(cells(r#""""#), some(&[""]));
        assert_eq!(cells(r#""""""#), some(&["\""]));
    }

    #[test]
    fn a_row_ends_at_the_same_place_whatever_the_pieces_it_is_read_in() {
        let text = b"x,\"a\n\"\"b\"\",\"\r\nnext";
        for first in 1..text.len() {
            let mut scan = RowScan::default();
            let begun = scan.row(&text[..first], false, |b| b == b',', b'\n').unwrap();
            let end = begun.or_else(|| scan.row(text, true, |b| b == b',', b'\n').unwrap());
            assert_eq!(end, Some(13), "after {first} bytes");
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_is_found() {
        let row = |text: &str| RowScan::default().row(text.as_bytes(), true, |b| b == b',', b'\n');
        assert_eq!(row("a,\"b\nc,d\n"), Ok(None));
        assert_eq!(row("a,\"b\nc,\"d\"\n"), Err(UnendedRow::TextAfterQuote));
        assert_eq!(row(&format!("a,\"b{}", "\nc".repeat(100))), Err(UnendedRow::TooManyLines));
        assert_eq!(row(&format!("a,\"b{}\"\n", "\nc".repeat(99))).unwrap(), Some(4 + 99 * 2 + 1));
    }
}
