//! Reads the bytes of a file or of standard input, decompressed and without a byte order mark. Bytes that were read and
//! not consumed are available as one slice.

use std::fs::File;
use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};

/// Number of bytes per read.
const CHUNK: usize = 1 << 18;
/// Number of bytes that determine the format.
const MAGIC: usize = 10;

/// An open file, or standard input.
pub(crate) struct InputFile {
    name: String,
    from: Box<dyn Read + Send>,
    is_packed: bool,
    /// Whether this is a regular file, which never blocks.
    is_regular: bool,
    has_ended: bool,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl InputFile {
    /// Opens a path, where `-` is standard input, and reads its beginning.
    ///
    /// # Errors
    /// 66 if it cannot be read, 65 if it is not text in a supported form.
    pub(crate) fn open(path: &str) -> Result<Self> {
        let cannot = |e: io::Error| Error::no_input(format_args!("cannot read {path}: {e}"));
        let file = if path == "-" { None } else { Some(File::open(path).map_err(cannot)?) };
        let is_regular = file.as_ref().is_some_and(|file| file.metadata().is_ok_and(|about| about.is_file()));
        let from: Box<dyn Read + Send> = match file {
            Some(file) => Box::new(file),
            None => Box::new(io::stdin()),
        };
        let name = if path == "-" { "standard input" } else { path };
        let mut input = InputFile::new(name, from, false);
        // Opening a directory succeeds, but reading it fails.
        input.fill().map_err(cannot)?;
        input.peek()?;
        if input.at_hand().starts_with(b"\x1f\x8b") {
            let begin = Cursor::new(input.at_hand().to_vec());
            input = InputFile::new(name, Box::new(MultiGzDecoder::new(begin.chain(input.from))), true);
            input.peek()?;
        }
        input.is_regular = is_regular;
        if let Some(what) = foreign(input.at_hand()) {
            return Err(Error::data(format_args!("{name} is {what}")));
        }
        if input.at_hand().starts_with(b"\xef\xbb\xbf") {
            input.consume(3);
        }
        Ok(input)
    }

    fn new(name: &str, from: Box<dyn Read + Send>, is_packed: bool) -> Self {
        InputFile {
            name: name.to_owned(),
            from,
            is_packed,
            is_regular: false,
            has_ended: false,
            buffer: vec![0; 2 * CHUNK],
            start: 0,
            end: 0,
        }
    }

    /// Returns the name for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the bytes that were read and not consumed.
    pub(crate) fn at_hand(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Returns whether nothing follows the available bytes.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns whether reading more bytes may block.
    pub(crate) fn may_keep_silent(&self) -> bool {
        !self.is_regular
    }

    /// Consumes bytes from the beginning of the slice.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count.min(self.end - self.start);
    }

    /// Reads more bytes, unless the end is reached. It may block.
    ///
    /// # Errors
    /// 66 if the file cannot be read further, 65 if it is damaged.
    pub(crate) fn more(&mut self) -> Result<()> {
        self.fill().map_err(|e| {
            let is_damaged = matches!(
                e.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
            );
            if self.is_packed && is_damaged {
                return Error::data(format_args!(
                    "{} is damaged or cut off: its gzip data cannot be unpacked any further ({e})",
                    self.name
                ));
            }
            Error::no_input(format_args!("cannot read {} any further: {e}", self.name))
        })
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.buffer.len() - self.end < CHUNK {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() - self.end < CHUNK {
                self.buffer.resize(2 * self.buffer.len(), 0);
            }
        }
        loop {
            match self.from.read(&mut self.buffer[self.end..self.end + CHUNK]) {
                Ok(count) => {
                    self.end += count;
                    self.has_ended = count == 0;
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads until there are enough bytes to detect the format.
    fn peek(&mut self) -> Result<()> {
        while !self.has_ended && self.at_hand().len() < MAGIC && !self.at_hand().contains(&b'\n') {
            self.more()?;
        }
        Ok(())
    }
}

/// Describes a file that is not text, by its first bytes, and says what to do.
fn foreign(begin: &[u8]) -> Option<&'static str> {
    const UTF16: &str = "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8";
    let known: [(&[u8], &str); 9] = [
        (b"\xff\xfe\0\0", "UTF-32 text; convert it: iconv -f UTF-32 -t UTF-8"),
        (b"\0\0\xfe\xff", "UTF-32 text; convert it: iconv -f UTF-32 -t UTF-8"),
        (b"\xff\xfe", UTF16),
        (b"\xfe\xff", UTF16),
        (b"PK\x03\x04", "a zip archive or a spreadsheet; unpack it, or save it as CSV"),
        (b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it: zstd -dc"),
        (b"\xfd7zXZ\0", "packed with xz; unpack it: xz -dc"),
        (b"\x04\x22\x4d\x18", "packed with lz4; unpack it: lz4 -dc"),
        (b"PAR1\x15", "a Parquet file; convert it to CSV or JSON Lines"),
    ];
    if let Some((_, what)) = known.iter().find(|(magic, _)| begin.starts_with(magic)) {
        return Some(what);
    }
    match begin {
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', ..] => Some("packed with bzip2; unpack it: bzip2 -dc"),
        // Text of ASCII characters, two bytes each.
        [a, b, c, d, ..] if [*a == 0, *b == 0, *c == 0, *d == 0] == [false, true, false, true] => Some(UTF16),
        [a, b, c, d, ..] if [*a == 0, *b == 0, *c == 0, *d == 0] == [true, false, true, false] => Some(UTF16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_is_not_text_is_named_and_text_is_accepted() {
        for (begin, says) in [
            (&b"\xff\xfed\0"[..], "UTF-16"),
            (b"d\0e\0v\0", "UTF-16"),
            (b"\xff\xfe\0\0d\0\0\0", "UTF-32"),
            (b"PK\x03\x04xxxx", "zip"),
            (b"BZh91AY&SY", "bzip2"),
        ] {
            assert!(foreign(begin).is_some_and(|what| what.contains(says)), "{says}");
        }
        for text in [&b""[..], b"BZh,value\n", b"PAR1,x\n", b"{\"a\":1}", b"\xef\xbb\xbfa,b", b"\xff,1"] {
            assert_eq!(foreign(text), None);
        }
    }
}
