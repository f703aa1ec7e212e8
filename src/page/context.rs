//! The context of a request that access control has admitted.

use super::auth::Visitor;
use super::site::Site;
use crate::http::Request;

/// A request with its visitor and the site that answers it.
pub(crate) struct RequestContext<'a> {
    /// Data and services that all pages share.
    pub site: &'a Site,
    /// Path, query, headers and body.
    pub request: &'a Request,
    /// The user who sent the request.
    pub visitor: Visitor,
}
