//! The complete decoder of one record: accepts every form and reports every error. Created once from the settings, then
//! shared.

use std::borrow::Cow;

use super::cell::{Cell, checked, name, number, time};
use super::collect::{CollectedFields, collect};
use super::field_source::{FieldSource, MOST_PATHS, PathIndex, SourcePart};
use super::fields::{FieldProblem, Fields, begins};
use super::forms::Forms;
use super::ignore::Pattern;
use super::timestamp::TimeUnit;
use super::zone::Zone;
use super::{Event, RawRecord, RejectClass, Rejection, hint, scan};

/// Paths of the default settings.
const FEW: usize = 4;

/// The settings `[fields]`, prepared for decoding.
#[derive(Debug, Clone)]
pub struct Parser {
    pub(super) fields: Fields,
    forms: Forms,
    /// Each path once, in the order of the numbers in [`SourcePart::Path`].
    paths: Vec<String>,
    /// Sources of device, metric, value and time.
    places: [FieldSource; 4],
    ignore: Vec<Pattern>,
    reads_headers: bool,
    /// The fast scan gives the same results as this decoder.
    is_plain: bool,
}

/// Why a key or a header cannot be used.
enum Unreadable {
    Twice,
    Binary,
    NotUtf8,
}

/// The parts of one record that are not JSON.
struct Around<'a> {
    key: Option<&'a [u8]>,
    headers: Vec<(Cow<'a, str>, Option<&'a [u8]>)>,
}

impl Parser {
    /// Prepares the settings.
    ///
    /// # Errors
    /// The first unusable setting.
    pub fn new(fields: &Fields) -> Result<Self, FieldProblem> {
        let mut named = PathIndex::default();
        let mut place = |at: usize| named.place(Fields::KEYS[at], fields.paths()[at]);
        let places = [place(0)?, place(1)?, place(2)?, place(3)?];
        let of_fields = named.0.len();
        for (i, a) in named.0.iter().enumerate() {
            if let Some(b) = named.0.iter().enumerate().find(|(j, b)| i != *j && begins(a, b)).map(|(_, b)| b) {
                let title = format!("the paths `{a}` and `{b}` lead to the same field");
                return Err(FieldProblem::new("device", title, "one path may not begin another"));
            }
        }
        let ignore =
            fields.ignore.iter().map(|text| Pattern::parse(text, &mut named)).collect::<Result<Vec<_>, _>>()?;
        if named.0.len() > MOST_PATHS {
            let title = format!("`fields` names {} different paths; at most {MOST_PATHS} can be read", named.0.len());
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
        Ok(Parser::with(fields, forms, named.0, places, ignore))
    }

    /// Prepares settings as old programs did that knew only four paths and one form of each value, for the replay of
    /// their records.
    pub fn literal(fields: &Fields) -> Self {
        let mut named = PathIndex::default();
        let places = fields.paths().map(|path| FieldSource::One(SourcePart::Path(named.path(path))));
        let forms = Forms { lenient: false, unit: TimeUnit::SecondsOrMillis, zone: Zone::UTC, decimal_comma: false };
        Parser::with(fields, forms, named.0, places, Vec::new())
    }

    fn with(fields: &Fields, forms: Forms, paths: Vec<String>, places: [FieldSource; 4], ignore: Vec<Pattern>) -> Self {
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
        Parser { fields: fields.clone(), forms, paths, places, ignore, reads_headers, is_plain }
    }

    /// Decodes a record. `None`: the record is ignored, because its value is null or because it matches a pattern.
    ///
    /// # Errors
    /// The first problem found; problems of the JSON text come before those of the fields.
    pub fn read<'a>(&self, record: &RawRecord<'a>) -> Result<Option<Event<'a>>, Rejection> {
        self.located(record).map(|(event, _)| event)
    }

    /// Returns the columns that a table may have, in the order in which [`row`](Self::row) expects their cells.
    pub fn columns(&self) -> &[String] {
        &self.paths
    }

    /// Decodes the cells of a table's row, those of [`columns`](Self::columns); `None` for an absent column. Cells are
    /// text, so lenient forms are always accepted. An empty cell counts as absent.
    ///
    /// # Errors
    /// As [`read`](Self::read).
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
        self.event(&cells, &around, &Forms { lenient: true, ..forms.clone() }, "")
    }

    /// Returns the spellings that these settings accept.
    pub fn forms(&self) -> &Forms {
        &self.forms
    }

    /// Decodes a record, and also returns where the values are if the record has the usual form.
    pub(super) fn located<'a>(
        &self,
        record: &RawRecord<'a>,
    ) -> Result<(Option<Event<'a>>, Option<scan::Spans>), Rejection> {
        let Some(bytes) = record.value else { return Ok((None, None)) };
        if self.is_plain
            && let Ok(text) = std::str::from_utf8(bytes)
            && let Some((event, spans)) = scan::usual(text, &self.fields)
        {
            return Ok((Some(event), Some(spans)));
        }
        self.careful(bytes, record).map(|event| (event, None))
    }

    /// Decodes a record without the fast scan.
    pub(super) fn careful<'a>(&self, bytes: &'a [u8], record: &RawRecord<'a>) -> Result<Option<Event<'a>>, Rejection> {
        let headers = if self.reads_headers { record.headers.all() } else { Vec::new() };
        let around = Around { key: record.key, headers };
        let is_ignored = |pattern: &Pattern| match &pattern.part {
            SourcePart::Path(_) => Ok(false),
            part => around.text(part).map(|found| pattern.matches(found)),
        };
        for pattern in &self.ignore {
            // A key that is not text matches no pattern.
            if is_ignored(pattern).unwrap_or_default() {
                return Ok(None);
            }
        }
        let text = self.text(bytes)?;
        if self.paths.len() <= FEW {
            self.object::<FEW>(text, &around)
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
        if text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
            Ok(text)
        } else {
            Err(hint::not_an_object(text))
        }
    }

    fn object<'a, const N: usize>(&self, text: &'a str, around: &Around<'a>) -> Result<Option<Event<'a>>, Rejection> {
        let mut found = CollectedFields::<N>::default();
        let paths = std::array::from_fn(|at| self.paths.get(at).map(String::as_str));
        collect(text, &paths, &mut found).map_err(|e| Rejection::new(RejectClass::Json, e))?;
        for pattern in &self.ignore {
            if let SourcePart::Path(at) = pattern.part {
                let cell = found.slots[at].map(|raw| Cell::Json(raw.get()));
                if pattern.matches(cell.and_then(|cell| cell.shown()).as_deref()) {
                    return Ok(None);
                }
            }
        }
        if let Some(path) = found.twice.iter().position(|twice| *twice).filter(|at| self.is_field(*at)) {
            return Err(Rejection::new(RejectClass::Duplicate, format_args!("`{}` is given twice", self.paths[path])));
        }
        let cells = found.slots.map(|raw| raw.map(|raw| Cell::Json(raw.get())));
        self.event(&cells, around, &self.forms, text)
    }

    /// Returns whether one of the four fields is at this path, and not only a pattern.
    fn is_field(&self, path: usize) -> bool {
        self.places.iter().any(|place| match place {
            FieldSource::Record => false,
            FieldSource::One(part) => *part == SourcePart::Path(path),
            FieldSource::Several(parts) => parts.contains(&SourcePart::Path(path)),
        })
    }

    /// Builds the event from the values found; `text` is the whole object, for messages.
    fn event<'a>(
        &self,
        cells: &[Option<Cell<'a>>],
        around: &Around<'a>,
        forms: &Forms,
        text: &str,
    ) -> Result<Option<Event<'a>>, Rejection> {
        let [device, metric, value, at] = &self.places;
        let reader = Reader { parser: self, cells, around, forms, text };
        let device_id = reader
            .name(device, RejectClass::DeviceId)?
            .ok_or_else(|| reader.missing(RejectClass::DeviceId, &self.fields.device))?;
        let metric_name = reader.name(metric, RejectClass::MetricName)?;
        let metric_value = match reader.one(value, RejectClass::MetricValue)? {
            Some(cell) => {
                number(cell, forms).map_err(|why| reader.wrong(RejectClass::MetricValue, &self.fields.value, &why))?
            }
            None => return Err(reader.missing(RejectClass::MetricValue, &self.fields.value)),
        };
        let timestamp = match reader.one(at, RejectClass::Timestamp)? {
            Some(cell) => {
                time(cell, forms).map_err(|why| reader.wrong(RejectClass::Timestamp, &self.fields.time, &why))?
            }
            None => None,
        };
        Ok(Some(Event { device_id, metric_name, metric_value, timestamp }))
    }
}

impl<'a> Around<'a> {
    /// Returns the content of the key or of a header.
    fn text(&self, part: &SourcePart) -> Result<Option<&'a str>, Unreadable> {
        let bytes = match part {
            SourcePart::Key => self.key,
            SourcePart::Header(name) => {
                let mut all = self.headers.iter().filter(|(key, _)| **key == **name);
                let first = all.next();
                if all.next().is_some() {
                    return Err(Unreadable::Twice);
                }
                first.and_then(|(_, value)| *value)
            }
            SourcePart::Text(_) | SourcePart::Path(_) => None,
        };
        match bytes {
            Some([0, _, _, _, _, _, ..]) => Err(Unreadable::Binary),
            Some(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| Unreadable::NotUtf8),
            None => Ok(None),
        }
    }
}

/// Selects the four fields from the values found in one record.
struct Reader<'r, 'a> {
    parser: &'r Parser,
    cells: &'r [Option<Cell<'a>>],
    around: &'r Around<'a>,
    forms: &'r Forms,
    text: &'r str,
}

impl<'a> Reader<'_, 'a> {
    fn wrong(&self, class: RejectClass, field: &str, why: &str) -> Rejection {
        Rejection::new(class, format_args!("`{field}` {why}"))
    }

    fn missing(&self, class: RejectClass, field: &str) -> Rejection {
        let instead = if self.text.is_empty() { String::new() } else { hint::instead(self.text, field) };
        self.wrong(class, field, &format!("is missing{instead}"))
    }

    /// Returns the name of a part, as in the settings.
    fn label(&self, part: &SourcePart) -> String {
        match part {
            SourcePart::Text(text) => text.to_string(),
            SourcePart::Path(at) => self.parser.paths[*at].clone(),
            SourcePart::Key => "$key".into(),
            SourcePart::Header(name) => format!("$header.{name}"),
        }
    }

    fn cell(&self, part: &SourcePart, class: RejectClass) -> Result<Option<Cell<'a>>, Rejection> {
        if let SourcePart::Path(at) = part {
            return Ok(self.cells.get(*at).copied().flatten());
        }
        let text = self.around.text(part).map_err(|why| match why {
            Unreadable::Twice => self.wrong(RejectClass::Duplicate, &self.label(part), "is given twice"),
            Unreadable::NotUtf8 => self.wrong(class, &self.label(part), "is not UTF-8"),
            Unreadable::Binary => {
                let why = "is binary, as a schema registry's clients and Kafka's serializers of numbers write it; expected text";
                self.wrong(class, &self.label(part), why)
            }
        })?;
        Ok(text.map(Cell::Text))
    }

    fn one(&self, place: &FieldSource, class: RejectClass) -> Result<Option<Cell<'a>>, Rejection> {
        match place {
            FieldSource::One(part) => self.cell(part, class),
            FieldSource::Record | FieldSource::Several(_) => Ok(None),
        }
    }

    fn named(&self, part: &SourcePart, class: RejectClass) -> Result<Option<Cow<'a, str>>, Rejection> {
        let Some(cell) = self.cell(part, class)? else { return Ok(None) };
        let is_absent_when_empty = class != RejectClass::DeviceId;
        name(cell, self.forms, is_absent_when_empty).map_err(|why| self.wrong(class, &self.label(part), &why))
    }

    /// Converts to a device or a metric.
    fn name(&self, place: &FieldSource, class: RejectClass) -> Result<Option<Cow<'a, str>>, Rejection> {
        let found = match place {
            FieldSource::Record => return Ok(None),
            FieldSource::One(part) => self.named(part, class)?,
            FieldSource::Several(parts) => self.joined(parts, class, self.field(class))?,
        };
        found.map(|text| checked(text, self.field(class), class)).transpose()
    }

    /// Returns the setting with the source of a name.
    fn field(&self, class: RejectClass) -> &str {
        let fields = &self.parser.fields;
        if class == RejectClass::DeviceId { &fields.device } else { &fields.metric }
    }

    /// Joins the parts. A metric without any of its parts is absent. Otherwise a missing part is an error, because the
    /// name would be that of another series.
    fn joined(&self, parts: &[SourcePart], class: RejectClass, field: &str) -> Result<Option<Cow<'a, str>>, Rejection> {
        let mut all = String::new();
        let (mut missing, mut has_any) = (None, false);
        for part in parts {
            if let SourcePart::Text(text) = part {
                all.push_str(text);
                continue;
            }
            match self.named(part, class)?.filter(|text| !text.is_empty()) {
                Some(text) => {
                    all.push_str(&text);
                    has_any = true;
                }
                None => missing = missing.or(Some(part)),
            }
        }
        match missing {
            Some(_) if !has_any && class != RejectClass::DeviceId => Ok(None),
            Some(part) => {
                let mut rejection = self.missing(class, &self.label(part));
                rejection.message = format!("{} (a part of `{field}`)", rejection.message);
                Err(rejection)
            }
            None => Ok(Some(Cow::Owned(all))),
        }
    }
}
