//! The complete decoder of one record: accepts every form and reports every error. It is created once from the
//! settings, then shared.

use super::cell::Cell;
use super::collect::{CollectedFields, collect};
use super::decoded::Decoded;
use super::each::Container;
use super::field_source::{FieldSource, MOST_PATHS, PathIndex, SourcePart, check_values};
use super::fields::{FieldProblem, Fields, OnPartial, begins};
use super::forms::Forms;
use super::ignore::Pattern;
use super::reader::{Around, Reader};
use super::timestamp::TimeUnit;
use super::zone::Zone;
use super::{Event, RawRecord, RejectClass, Rejection, hint, scan, several};

/// Number of paths in the default settings.
const DEFAULT_PATHS: usize = 4;

/// The settings `[fields]`, prepared for decoding.
#[derive(Debug, Clone)]
pub struct Parser {
    pub(super) fields: Fields,
    forms: Forms,
    /// Distinct paths, in the order of the numbers in [`SourcePart::Path`].
    paths: Vec<String>,
    /// Sources of device, metric, value and time.
    places: [FieldSource; 4],
    /// Container of the values, if records have several.
    container: Option<Container>,
    ignore: Vec<Pattern>,
    reads_headers: bool,
    /// Whether the fast scan gives the same results as this decoder.
    is_plain: bool,
}

impl Parser {
    /// Prepares the settings for decoding.
    ///
    /// # Errors
    /// Returns the first unusable setting.
    pub fn new(fields: &Fields) -> Result<Self, FieldProblem> {
        let mut named = PathIndex::default();
        let mut place = |at: usize| named.place(Fields::KEYS[at], fields.paths()[at]);
        let mut places = [place(0)?, place(1)?, place(2)?, place(3)?];
        let of_fields = named.paths.len();
        check_values(fields, &mut places, &named)?;
        let inner = named.container.as_ref().map_or(&[][..], |container| &container.inner);
        for (paths, is_inner) in [(&named.paths[..], false), (inner, true)] {
            if let Some((a, b)) = overlap(paths, is_inner) {
                let title = format!("the paths `{a}` and `{b}` lead to the same field");
                return Err(FieldProblem::new("device", title, "one path may not begin another"));
            }
        }
        let ignore =
            fields.ignore.iter().map(|text| Pattern::parse(text, &mut named)).collect::<Result<Vec<_>, _>>()?;
        let most = named.container.iter().map(|container| container.inner.len()).fold(named.paths.len(), usize::max);
        if most > MOST_PATHS {
            let title = format!("`fields` names {most} different paths; at most {MOST_PATHS} can be read");
            let key = if of_fields > MOST_PATHS { "device" } else { "ignore" };
            return Err(FieldProblem::new(key, title, "name fewer"));
        }
        let zone = Zone::parse(&fields.time_zone).ok_or_else(|| {
            let title = format!("`fields.time_zone` is `{}`, which is no time zone", fields.time_zone);
            FieldProblem::new(
                "time_zone",
                title,
                "expected UTC, an offset such as +01:00, or a name such as Europe/Berlin",
            )
        })?;
        let forms = Forms { lenient: fields.lenient, unit: fields.time_unit, zone, decimal_comma: false };
        Ok(Parser::with(fields, forms, named, places, ignore))
    }

    /// Prepares settings as older programs did, for the replay of their records. Those programs supported only four
    /// paths and one form of each value.
    pub fn literal(fields: &Fields) -> Self {
        let mut named = PathIndex::default();
        let places = fields.paths().map(|path| FieldSource::One(SourcePart::Path(named.path(path))));
        let forms = Forms { lenient: false, unit: TimeUnit::SecondsOrMillis, zone: Zone::UTC, decimal_comma: false };
        Parser::with(fields, forms, named, places, Vec::new())
    }

    fn with(fields: &Fields, forms: Forms, named: PathIndex, places: [FieldSource; 4], ignore: Vec<Pattern>) -> Self {
        let PathIndex { paths, container, .. } = named;
        let is_header = |part: &SourcePart| matches!(part, SourcePart::Header(_));
        let reads_headers = ignore.iter().any(|pattern| is_header(&pattern.part))
            || places.iter().any(|place| match place {
                FieldSource::Record => false,
                FieldSource::One(part) => is_header(part),
                FieldSource::Several(parts) => parts.iter().any(is_header),
            });
        let is_plain = ignore.is_empty()
            && places.iter().all(|place| matches!(place, FieldSource::One(SourcePart::Path(_))))
            && paths.len() == 4;
        Parser { fields: fields.clone(), forms, paths, places, container, ignore, reads_headers, is_plain }
    }

    /// Decodes a record. It is ignored if its value is null or if it matches a pattern.
    ///
    /// # Errors
    /// Returns the first problem found. Problems of the JSON text come before those of the fields.
    pub fn read<'a>(&self, record: &RawRecord<'a>) -> Result<Decoded<'a>, Rejection> {
        self.located(record).map(|(events, _)| events)
    }

    /// Returns the columns that a table may have, in the order in which [`row`](Self::row) expects their cells.
    pub fn columns(&self) -> &[String] {
        &self.paths
    }

    /// Decodes the cells of a table's row, those of [`columns`](Self::columns); `None` for an absent column. Cells are
    /// text, so lenient forms are always accepted. An empty cell counts as absent.
    ///
    /// # Errors
    /// Returns the first problem found, as [`read`](Self::read) does.
    pub fn row<'a>(&self, cells: &[Option<&'a str>], forms: &Forms) -> Result<Option<Event<'a>>, Rejection> {
        let cells = cells.iter().map(|cell| cell.filter(|text| !text.is_empty()).map(Cell::Text)).collect::<Vec<_>>();
        let around = Around { key: None, headers: Vec::new() };
        let is_ignored = |pattern: &Pattern| match pattern.part {
            SourcePart::Path(at) => pattern.matches(cells.get(at).copied().flatten().and_then(Cell::shown).as_deref()),
            _ => false,
        };
        if self.ignore.iter().any(is_ignored) {
            return Ok(None);
        }
        let forms = Forms { lenient: true, ..forms.clone() };
        self.reader(&cells, &around, &forms, "").event().map(Some)
    }

    /// Returns the paths of the patterns of records to ignore, and whether each pattern compares the value with a text.
    pub fn ignored(&self) -> impl Iterator<Item = (&str, bool)> {
        self.ignore.iter().filter_map(|pattern| match pattern.part {
            SourcePart::Path(at) => Some((self.paths[at].as_str(), pattern.compares())),
            _ => None,
        })
    }

    /// Returns whether a JSON object has a value at a path. No path leads into an array, so that it counts as one.
    pub fn has(&self, bytes: &[u8], path: &str) -> bool {
        let mut found = CollectedFields::<1>::default();
        let collected = self.text(bytes).is_ok_and(|text| collect(text, &[Some(path)], &mut found).is_ok());
        self.is_array() || collected && found.slots[0].is_some()
    }

    /// Returns whether the valid values of a record are judged although others are invalid.
    pub fn judges_valid(&self) -> bool {
        self.fields.on_partial == OnPartial::JudgeValid
    }

    /// Returns the spellings that these settings accept.
    pub fn forms(&self) -> &Forms {
        &self.forms
    }

    /// Decodes a record, and also returns where the values are if the record has the usual form.
    pub(super) fn located<'a>(&self, record: &RawRecord<'a>) -> Result<(Decoded<'a>, Option<scan::Spans>), Rejection> {
        let Some(bytes) = record.value else { return Ok((Decoded::Ignored, None)) };
        if self.is_plain
            && let Ok(text) = std::str::from_utf8(bytes)
            && let Some((event, spans)) = scan::usual(text, &self.fields)
        {
            return Ok((Decoded::One(event), Some(spans)));
        }
        self.careful(bytes, record).map(|events| (events, None))
    }

    /// Decodes a record without the fast scan.
    pub(super) fn careful<'a>(&self, bytes: &'a [u8], record: &RawRecord<'a>) -> Result<Decoded<'a>, Rejection> {
        let headers = if self.reads_headers { record.headers.all() } else { Vec::new() };
        let around = Around { key: record.key, headers };
        let is_ignored = |pattern: &Pattern| match &pattern.part {
            SourcePart::Path(_) => Ok(false),
            part => around.text(part).map(|found| pattern.matches(found)),
        };
        for pattern in &self.ignore {
            // A key that is not text matches no pattern.
            if is_ignored(pattern).unwrap_or_default() {
                return Ok(Decoded::Ignored);
            }
        }
        let text = self.text(bytes)?;
        if self.paths.len() <= DEFAULT_PATHS {
            self.object::<DEFAULT_PATHS>(text, &around)
        } else {
            self.object::<MOST_PATHS>(text, &around)
        }
    }

    /// Returns the text of the JSON object.
    fn text<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, Rejection> {
        if bytes.is_empty() {
            return Err(Rejection::new(RejectClass::Empty, "the value is empty; expected a JSON object"));
        }
        let is_object = |bytes: &[u8]| bytes.trim_ascii_start().starts_with(b"{");
        let bytes = match bytes {
            [0xef, 0xbb, 0xbf, rest @ ..] if self.forms.lenient => rest,
            // Clients with JSON Schema put a header before plain JSON.
            [0, _, _, _, _, rest @ ..] if self.forms.lenient && is_object(rest) => rest,
            _ => bytes,
        };
        if let Some(rejection) = hint::framed(bytes) {
            return Err(rejection);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| hint::binary(bytes, error))?;
        let first = if self.is_array() { '[' } else { '{' };
        if text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with(first) {
            Ok(text)
        } else {
            Err(hint::not_an_object(text))
        }
    }

    /// Returns whether the record itself is the array of the values.
    fn is_array(&self) -> bool {
        self.container.as_ref().is_some_and(|container| container.at.is_none())
    }

    fn object<'a, const N: usize>(&self, text: &'a str, around: &Around<'a>) -> Result<Decoded<'a>, Rejection> {
        let mut found = CollectedFields::<N>::default();
        if !self.is_array() {
            let paths = std::array::from_fn(|at| self.paths.get(at).map(String::as_str));
            collect(text, &paths, &mut found).map_err(|e| Rejection::new(RejectClass::Json, e))?;
        }
        for pattern in &self.ignore {
            if let SourcePart::Path(at) = pattern.part {
                let cell = found.slots[at].map(|raw| Cell::Json(raw.get()));
                if pattern.matches(cell.and_then(|cell| cell.shown()).as_deref()) {
                    return Ok(Decoded::Ignored);
                }
            }
        }
        if let Some(path) = found.twice.iter().position(|twice| *twice).filter(|at| self.is_field(*at)) {
            return Err(Rejection::new(RejectClass::Duplicate, format_args!("`{}` is given twice", self.paths[path])));
        }
        let cells = found.slots.map(|raw| raw.map(|raw| Cell::Json(raw.get())));
        let reader = self.reader(&cells, around, &self.forms, text);
        match &self.container {
            None => reader.event().map(Decoded::One),
            Some(container) => several::read(container, text, reader),
        }
    }

    fn reader<'r, 'a>(
        &'r self,
        cells: &'r [Option<Cell<'a>>],
        around: &'r Around<'a>,
        forms: &'r Forms,
        text: &'r str,
    ) -> Reader<'r, 'a> {
        let Parser { fields, paths, places, .. } = self;
        Reader { fields, paths, places, cells, around, forms, text, inside: None }
    }

    /// Returns whether one of the four fields is at this path, and not only a pattern.
    fn is_field(&self, path: usize) -> bool {
        self.container.as_ref().is_some_and(|container| container.at == Some(path))
            || self.places.iter().any(|place| match place {
                FieldSource::Record => false,
                FieldSource::One(part) => *part == SourcePart::Path(path),
                FieldSource::Several(parts) => parts.contains(&SourcePart::Path(path)),
            })
    }
}

/// Returns two paths of which one begins the other. An empty path within an element is the whole element.
fn overlap(paths: &[String], is_inner: bool) -> Option<(&str, &str)> {
    let both = |i: usize, j: usize| i != j && ((is_inner && paths[i].is_empty()) || begins(&paths[i], &paths[j]));
    let mut pairs = (0..paths.len()).flat_map(|i| (0..paths.len()).map(move |j| (i, j)));
    pairs.find(|(i, j)| both(*i, *j)).map(|(i, j)| (paths[i].as_str(), paths[j].as_str()))
}
