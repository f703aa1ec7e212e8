//! A request that is let in, and who asks.

use super::auth::Visitor;
use super::site::Site;
use crate::http::Request;

/// A request with its visitor.
pub struct RequestContext<'a> {
    /// What all pages share.
    pub site: &'a Site,
    /// Path, query, headers and body.
    pub request: &'a Request,
    /// Who asks.
    pub visitor: Visitor,
}
