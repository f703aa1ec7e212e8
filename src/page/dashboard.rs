//! A running dashboard: what its pages share, the pages, and the readers of its event stream.

use std::sync::Arc;

use super::SiteOptions;
use super::live::hub::Hub;
use super::registry::Pages;
use super::site::Site;
use crate::archive::Archive;
use crate::error::Result;

/// Everything that answers requests.
pub struct Dashboard {
    /// What the pages share.
    pub site: Site,
    /// The pages.
    pub pages: Pages,
    /// The readers of the event stream.
    pub hub: Hub,
}

impl Dashboard {
    /// Asks the archive nothing yet.
    ///
    /// # Errors
    /// 70 when an embedded template is broken.
    pub fn new(archive: Arc<dyn Archive>, options: SiteOptions) -> Result<Dashboard> {
        let hub = Hub::new(Arc::clone(&options.stop));
        let site = Site::new(archive, options, Pages::TEMPLATES)?;
        Ok(Dashboard { pages: Pages::new(&site), site, hub })
    }
}
