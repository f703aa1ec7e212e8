//! Builds the conditions of a statement. Input of a reader is always a value, never part of the statement.

use postgres::types::ToSql;

use crate::archive::{Bins, Filter, PageKey, Review};
use crate::event::Timestamp;
use crate::store::row::IDENTITY;

/// Conditions of one statement with their values, numbered as they are added.
#[derive(Default)]
pub(crate) struct WhereClause {
    /// Text from ` where` on; empty without conditions.
    pub text: String,
    values: Vec<Box<dyn ToSql + Sync>>,
}

impl WhereClause {
    /// Adds a condition, in which each `?` stands for the next value.
    pub(crate) fn and(&mut self, condition: &str, values: Vec<Box<dyn ToSql + Sync>>) {
        self.text += if self.text.is_empty() { " where " } else { " and " };
        let mut number = self.values.len();
        for part in condition.split_inclusive('?') {
            match part.strip_suffix('?') {
                Some(before) => {
                    number += 1;
                    self.text += &format!("{before}${number}");
                }
                None => self.text += part,
            }
        }
        self.values.extend(values);
    }

    fn any(&mut self, column: &str, values: &[String]) {
        match values {
            [] => {}
            [one] => self.and(&format!("{column} = ?"), vec![Box::new(one.clone())]),
            several => self.and(&format!("{column} = any(?)"), vec![Box::new(several.to_vec())]),
        }
    }

    fn range(&mut self, column: &str, from: Option<Timestamp>, to: Option<Timestamp>) {
        for (sign, time) in [(">=", from), ("<", to)] {
            if let Some(time) = time {
                self.and(&format!("{column} {sign} ?"), vec![Box::new(time.to_time())]);
            }
        }
    }

    /// Builds the conditions of a filter for the table of anomalies.
    pub(crate) fn of(filter: &Filter) -> WhereClause {
        let mut conditions = WhereClause::default();
        conditions.series(filter);
        conditions.any("method", &filter.methods);
        conditions.any("label", &filter.labels);
        conditions.reviews(&filter.reviews);
        conditions.range("event_time", filter.from, filter.to);
        conditions
    }

    /// Builds the conditions for a table of rows or totals, by its own column of time.
    pub(crate) fn over(table: &str, filter: &Filter, bins: &Bins, time: &str) -> WhereClause {
        if table == "anomalies" {
            return WhereClause::of(&Filter { from: Some(bins.from), to: bins.to(), ..filter.clone() });
        }
        let mut conditions = WhereClause::default();
        conditions.series(filter);
        conditions.range(time, Some(bins.from), bins.to());
        conditions
    }

    /// Adds the conditions on columns that totals also have.
    pub(crate) fn series(&mut self, filter: &Filter) {
        if filter.is_impossible {
            self.and("false", Vec::new());
        }
        self.any("device_id", &filter.devices);
        self.any("metric_name", &filter.metrics);
        let severities = filter.severities.iter().map(|severity| severity.as_str().to_owned());
        self.any("severity", &severities.collect::<Vec<_>>());
    }

    /// Adds the condition that rows are on one side of a key.
    pub(crate) fn beyond(&mut self, sign: &str, key: &PageKey) {
        // The second condition implies the first, but only the first can use the index.
        self.and(&format!("event_time {sign}= ?"), vec![Box::new(key.time.to_time())]);
        self.and(
            &format!("(event_time, {IDENTITY}) {sign} (?, ?, ?, ?, ?, ?, ?)"),
            vec![
                Box::new(key.time.to_time()),
                Box::new(key.topic.clone()),
                Box::new(key.generation),
                Box::new(key.partition),
                Box::new(key.offset),
                Box::new(key.index),
                Box::new(key.kind.clone()),
            ],
        );
    }

    /// Adds a condition on reviews. Reviews are few compared with anomalies, so the statement searches from them.
    fn reviews(&mut self, reviews: &[Review]) {
        if reviews.is_empty() {
            return;
        }
        let names = reviews.iter().map(|review| review.as_str().to_owned()).collect::<Vec<_>>();
        let (is_in, which) = match reviews.contains(&Review::None) {
            true => ("not in", "review <> all(?)"),
            false => ("in", "review = any(?)"),
        };
        let place = format!("{IDENTITY}, event_time");
        self.and(
            &format!("({place}) {is_in} (select {place} from current_reviews where {which})"),
            vec![Box::new(names)],
        );
    }

    /// Adds a value that the statement itself uses; returns its number.
    pub(crate) fn value(&mut self, value: impl ToSql + Sync + 'static) -> usize {
        self.values.push(Box::new(value));
        self.values.len()
    }

    /// Returns the values in the order of their numbers.
    pub(crate) fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(AsRef::as_ref).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::Severity;

    #[test]
    fn conditions_are_numbered_in_the_order_of_their_values() {
        let filter = Filter {
            devices: vec!["a'; drop table anomalies; --".into()],
            metrics: vec!["a".into(), "b".into()],
            severities: vec![Severity::Critical],
            from: Timestamp::from_millis(0),
            ..Filter::default()
        };
        let mut conditions = WhereClause::of(&filter);
        let text = " where device_id = $1 and metric_name = any($2) and severity = $3 and event_time >= $4";
        assert_eq!(conditions.text, text);
        assert_eq!(conditions.value(7_i64), 5);
        assert_eq!(conditions.values().len(), 5);
    }

    #[test]
    fn no_filter_is_no_condition() {
        assert_eq!(WhereClause::of(&Filter::default()).text, "");
    }
}
