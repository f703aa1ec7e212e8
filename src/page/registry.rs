//! The registry of all pages. A new page needs a file that implements [`Page`](super::cached_page::Page), and a line in
//! this file.

use std::time::Duration;

use super::answer_cache::NoNewAnswer;
use super::cached_page::{CachedPage, Page};
use super::context::RequestContext;
use super::query::PageQuery;
use super::site::{Site, Template};
use super::view::banner::{Banner, Tone};
use super::view::dead_letters::DeadLetters;
use super::view::detection::Detection;
use super::view::device::Device;
use super::view::devices::Devices;
use super::view::explain::Explain;
use super::view::list::List;
use super::view::overview::Overview;
use super::view::verdict;
use crate::http::Response;

/// Maximum age of the overview's verdict that other pages show.
const ALARM: Duration = Duration::from_secs(20);

macro_rules! pages {
    ($($name:ident: $page:ty = $sample:expr),+ $(,)?) => {
        /// All pages with their caches of answers.
        pub(crate) struct Pages { $(#[allow(missing_docs)] pub(crate) $name: CachedPage<$page>),+ }

        impl Pages {
            /// Templates of all pages, for the template engine.
            pub(crate) const TEMPLATES: &[Template] = &[$(<$page>::TEMPLATE),+];

            /// Makes all pages with empty caches.
            pub(crate) fn new(site: &Site) -> Pages {
                Pages { $($name: CachedPage::new(site)),+ }
            }

            /// Answers with the page at a path; returns `None` when there is no such page.
            pub(crate) fn answer(&self, context: &RequestContext<'_>, path: &[&str]) -> Option<Response> {
                None$(.or_else(|| self.$name.answer(context, path, || self.alarm::<$page>(context.site))))+
            }

            /// Returns whether the path of each page's sample is one of that page.
            #[cfg(test)]
            fn samples() -> Vec<(&'static str, bool)> {
                vec![$((stringify!($name), <$page>::key(&$sample, &PageQuery::default()).is_some())),+]
            }

            /// Queries the archive for each page at its sample path; returns why the first that fails has no new
            /// answer.
            pub(crate) fn unanswered(&self, site: &Site) -> Option<NoNewAnswer> {
                None$(.or_else(|| self.$name.unanswered(site, &$sample)))+
            }
        }
    };
}

// Each page has a sample path, at which the watch over the archive queries. No anomaly needs to exist there.
pages! {
    overview: Overview = [""],
    list: List = ["anomalies"],
    explain: Explain = ["anomalies", "-", "0", "0", "0", "point"],
    devices: Devices = ["devices"],
    device: Device = ["devices", "-"],
    detection: Detection = ["detection"],
    dead_letters: DeadLetters = ["dead-letters"],
}

impl Pages {
    /// Returns what is wrong with the detection, for pages other than the overview. It uses the overview's cached
    /// verdict and starts no query.
    fn alarm<P: Page>(&self, site: &Site) -> Option<String> {
        if P::NAV == Overview::NAV {
            return None;
        }
        let (data, taken) = self.overview.cache().peek(&PageQuery::default(), ALARM)?;
        let banner = verdict::of(site, &data, &PageQuery::default(), taken);
        matches!(banner.tone, Tone::Degraded | Tone::Stopped | Tone::Unknown).then(|| banner.sentence())
    }

    /// Returns the state of the detection in the last hour, or why it is not known.
    pub(crate) fn verdict(&self, site: &Site) -> Result<Banner, NoNewAnswer> {
        let got = self.overview.get(site, &PageQuery::default());
        match (got.answer, got.why) {
            (Some((data, taken)), None) => Ok(verdict::of(site, &data, &PageQuery::default(), taken)),
            (_, why) => Err(why.unwrap_or(NoNewAnswer::Slow)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_watched_for_every_page() {
        let unwatched = Pages::samples().into_iter().filter(|(_, is_watched)| !is_watched).collect::<Vec<_>>();
        assert!(unwatched.is_empty(), "the sample path is not one of the page: {unwatched:?}");
    }
}
