//! Spellings of numbers, names and times in the input. JSON and tables share them, because the cells of a table are
//! text, like JSON strings.

use super::spelling;
use super::timestamp::{TimeUnit, Timestamp};
use super::zone::Zone;
use crate::foreign;

/// Accepted spellings; see the settings `fields.lenient`, `fields.time_unit` and `fields.time_zone`.
#[derive(Debug, Clone, PartialEq)]
pub struct Forms {
    /// Accepts text as a number, integers as names, and more than RFC 3339 as a time, if the text has only one meaning.
    pub lenient: bool,
    /// Unit of times that are epoch numbers.
    pub unit: TimeUnit,
    /// Time zone of times without one.
    pub zone: Zone,
    /// Whether a comma is the decimal point (`1,5`), in tables.
    pub decimal_comma: bool,
}

impl Default for Forms {
    fn default() -> Self {
        Forms { lenient: true, unit: TimeUnit::Auto, zone: Zone::UTC, decimal_comma: false }
    }
}

impl Forms {
    /// Converts a text to a finite number.
    ///
    /// # Errors
    /// Returns what is wrong, as the words that follow the field's name: "is not a finite number".
    pub fn number(&self, text: &str) -> Result<f64, String> {
        let text = text.trim_ascii();
        if self.decimal_comma && may_be_thousands(text) {
            return Err(format!(
                "has a point that may separate thousands, since a comma is the decimal point here: {}",
                shown(text)
            ));
        }
        let with_point = (self.decimal_comma && !text.contains('.')).then(|| text.replacen(',', ".", 1));
        let text = with_point.as_deref().unwrap_or(text);
        if text.is_empty() {
            return Err("is empty; expected a number".into());
        }
        if spelling::is_number(text) {
            // Rust parses every form that `is_number` accepts.
            let number = text.parse::<f64>().unwrap_or(f64::INFINITY);
            let is_finite = number.is_finite().then_some(number);
            return is_finite.ok_or_else(|| "is beyond the range of a 64-bit float".into());
        }
        let is_word = ["nan", "inf", "infinity"].contains(&text.trim_start_matches(['+', '-']).to_lowercase().as_str());
        let why = match text {
            _ if is_word => "is not a finite number",
            _ if text.contains(',') => "has a comma; expected a number with a decimal point and without separators",
            _ => "is not a number",
        };
        Err(format!("{why}: {}", shown(text)))
    }

    /// Converts a text to a time; `None` if there is none, so that the record's own time is used.
    ///
    /// # Errors
    /// Returns what is wrong, as a sentence.
    pub fn time(&self, text: &str) -> Result<Option<Timestamp>, String> {
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        spelling::read(text, self.unit, &self.zone).map(Some).ok_or_else(|| self.bad_time(text))
    }

    /// Returns why a text is not a time.
    pub fn bad_time(&self, text: &str) -> String {
        let expected = match self.lenient {
            true => "a time such as 2026-11-23T17:00:00.123Z or an epoch number",
            false => "RFC 3339 (2026-11-23T17:00:00.123Z) or an epoch number",
        };
        format!("{} is not a time that can be read in one way only; expected {expected}", shown(text))
    }
}

/// Escapes text of the input for a message.
pub(crate) fn shown(text: &str) -> String {
    const MAX_SHOWN: usize = 40;
    format!("\"{}\"", foreign::bytes(text.as_bytes(), MAX_SHOWN))
}

/// Returns whether a text looks like thousands separated by a point: one to three digits, a point, three digits.
fn may_be_thousands(text: &str) -> bool {
    let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    text.trim_start_matches(['+', '-']).split_once('.').is_some_and(|(whole, group)| {
        (1..=3).contains(&whole.len())
            && !whole.starts_with('0')
            && group.len() == 3
            && is_digits(whole)
            && is_digits(group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_as_text_is_decimal_finite_and_may_have_blanks_around_it() {
        let forms = Forms::default();
        for (text, number) in
            [("21.5", 21.5), (" -3 ", -3.0), ("+1e3", 1000.0), (".5", 0.5), ("5.", 5.0), ("1E-2", 0.01), ("007", 7.0)]
        {
            assert_eq!(forms.number(text), Ok(number), "{text}");
        }
        assert_eq!(forms.number("-0").unwrap().to_bits(), (-0.0_f64).to_bits());
        for text in
            ["", " ", "NaN", "-inf", "Infinity", "0x10", "1_000", "1 000", "1e", "e5", ".", "-", "true", "1e400", "1,5"]
        {
            assert!(forms.number(text).is_err(), "{text}");
        }
        assert!(forms.number("1,5").unwrap_err().contains("decimal point"));
        assert!(forms.number("+Inf").unwrap_err().contains("not a finite number"));
    }

    #[test]
    fn a_decimal_comma_is_accepted_where_it_is_configured() {
        let forms = Forms { decimal_comma: true, ..Forms::default() };
        assert_eq!(forms.number("-1,5"), Ok(-1.5));
        assert_eq!(forms.number("1.5"), Ok(1.5));
        // This may be 1234 or a little more than 1.
        assert!(forms.number("1.234").unwrap_err().contains("may separate thousands"));
        assert!(
            forms.number("-12.500").is_err() && forms.number("0.125") == Ok(0.125) && forms.number("1234.500").is_ok()
        );
        assert!(forms.number("1.234,5").is_err() && forms.number("1,234,5").is_err());
    }
}
