//! Wide tables: each numeric column is a metric, so that a row has several values.

use std::borrow::Cow;

use super::cells::Cells;
use crate::event::{Decoded, Event, Forms, MAX_NAME, Parser, RejectClass, Rejection};
use crate::foreign;

/// The columns of a wide table that are metrics.
#[derive(Debug, Default)]
pub(crate) struct WideColumns {
    /// Columns with their names, in the order of the table.
    metrics: Vec<(usize, String)>,
    /// Names of the other columns, escaped.
    skipped: Vec<String>,
}

impl WideColumns {
    /// Chooses the metrics among these columns by the first row: a column is skipped if its cell there is not a number.
    /// An empty cell may become a number.
    pub(crate) fn of(candidates: Vec<(usize, String)>, first: Option<&[u8]>, delimiter: u8, forms: &Forms) -> Self {
        let cells = first.map(|row| Cells::new(row, delimiter).collect::<Vec<_>>()).unwrap_or_default();
        let is_metric = |column: usize, name: &str| {
            let text = match cells.get(column) {
                Some(Some(cell)) => std::str::from_utf8(cell).ok(),
                Some(None) => None,
                None => Some(""),
            };
            let is_number = |text: &str| text.trim_ascii().is_empty() || forms.number(text).is_ok();
            (1..=MAX_NAME).contains(&name.len()) && !name.contains('\0') && text.is_some_and(is_number)
        };
        let mut wide = WideColumns::default();
        for (column, name) in candidates {
            if is_metric(column, &name) {
                wide.metrics.push((column, name));
            } else {
                wide.skipped.push(foreign::name(&name).to_string());
            }
        }
        wide
    }

    /// Says which columns are metrics, and which are skipped.
    pub(crate) fn described(&self, file: &str) -> String {
        const MAX_LISTED: usize = 10;
        let mut names = self.names().take(MAX_LISTED).collect::<Vec<_>>().join(", ");
        if self.count() > MAX_LISTED {
            names += &format!(" and {} more", self.count() - MAX_LISTED);
        }
        let skipped = match self.skipped() {
            [] => String::new(),
            skipped => format!("; columns without a number in the first row are skipped: {}", skipped.join(", ")),
        };
        format!("{file}: each of these columns is a metric: {names}{skipped}")
    }

    /// Returns the escaped names of the metrics.
    fn names(&self) -> impl Iterator<Item = String> {
        self.metrics.iter().map(|(_, name)| foreign::name(name).to_string())
    }

    /// Returns the escaped names of the columns that are no metrics.
    pub(crate) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Returns the number of metrics.
    pub(crate) fn count(&self) -> usize {
        self.metrics.len()
    }

    /// Returns the events of a row; `base` has their device and time. Empty cells have no value.
    ///
    /// # Errors
    /// The first invalid value; with `fields.on_partial = "judge_valid"` only if no value is valid.
    pub(crate) fn events<'a>(
        &'a self,
        row: &[u8],
        delimiter: u8,
        base: &Event<'a>,
        parser: &Parser,
        forms: &Forms,
    ) -> Result<Decoded<'a>, Rejection> {
        let mut cells = Cells::new(row, delimiter).enumerate();
        let (mut events, mut problem) = (Vec::with_capacity(self.metrics.len()), None);
        for ((column, name), index) in self.metrics.iter().zip(0..) {
            let cell = cells.find(|(at, _)| at == column).and_then(|(_, cell)| cell);
            let cell = cell.ok_or_else(|| {
                let message = format!("the row ends before `{}`", foreign::name(name));
                Rejection { class: RejectClass::Shape, message }
            })?;
            match number(&cell, name, forms) {
                Ok(None) => {}
                Ok(Some(value)) => {
                    let metric_name = Some(Cow::Borrowed(name.as_str()));
                    events.push((index, Event { metric_name, metric_value: value, ..base.clone() }));
                }
                Err(rejection) if !parser.judges_valid() => return Err(rejection),
                Err(rejection) => problem = problem.or(Some(rejection)),
            }
        }
        match problem {
            Some(rejection) if events.is_empty() => Err(rejection),
            partial => Ok(Decoded::of(events, partial, false)),
        }
    }
}

fn number(cell: &[u8], name: &str, forms: &Forms) -> Result<Option<f64>, Rejection> {
    let wrong = |why: String| {
        let message = format!("`{}` {why}", foreign::name(name));
        Rejection { class: RejectClass::MetricValue, message }
    };
    let text = std::str::from_utf8(cell).map_err(|why| wrong(format!("is not UTF-8: {why}")))?;
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    forms.number(text).map(Some).map_err(wrong)
}
