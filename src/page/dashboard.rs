//! A running dashboard: the shared site, the pages, and the subscribers of the event stream.

use std::sync::Arc;

use super::live::hub::Hub;
use super::options::SiteOptions;
use super::registry::Pages;
use super::site::Site;
use crate::archive::Archive;
use crate::error::Result;

/// Everything that is needed to answer requests.
pub(crate) struct Dashboard {
    /// Data and services that all pages share.
    pub site: Site,
    /// The pages with their caches.
    pub pages: Pages,
    /// The subscribers of the event stream.
    pub hub: Hub,
}

impl Dashboard {
    /// Makes a dashboard without querying the archive.
    ///
    /// # Errors
    /// 70 when an embedded template is not valid.
    pub(crate) fn new(archive: Arc<dyn Archive>, options: SiteOptions) -> Result<Dashboard> {
        let hub = Hub::new(Arc::clone(&options.stop));
        let site = Site::new(archive, options, Pages::TEMPLATES)?;
        Ok(Dashboard { pages: Pages::new(&site), site, hub })
    }
}
