//! Routes a request to its page by its path.

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::answer_cache::NoNewAnswer;
use super::auth::{Admission, Visitor};
use super::cached_page;
use super::context::RequestContext;
use super::dashboard::Dashboard;
use super::frame::Frame;
use super::query::{self, PageQuery, QueryError};
use super::view::links::AnomalyId;
use super::view::{api, export, keys, login, notice, review};
use super::{live, respond};
use crate::http::{Request, Response};

/// Answers any request.
pub fn answer(dashboard: &Dashboard, mut request: Request) -> Response {
    let site = &dashboard.site;
    // If the path does not start with the base path, the proxy has already removed it.
    if let Some(inside) = site.base.inside(&request.path) {
        request.path = inside.to_owned();
    }
    let request = &request;
    let answer = match site.assets.find(&request.path) {
        Some(asset) => asset,
        None if request.path.is_empty() => respond::see_other(site, &format!("/{}", login::query(request))),
        None if request.path == "/robots.txt" => Response::text(200, "User-agent: *\nDisallow: /\n"),
        None => enter(dashboard, request),
    };
    respond::packed(respond::guarded(answer, site.is_tls_only && site.door.is_encrypted(request)), request)
}

fn enter(dashboard: &Dashboard, request: &Request) -> Response {
    let site = &dashboard.site;
    let nobody = || RequestContext {
        site,
        request,
        visitor: Visitor { name: String::new(), is_operator: false, can_leave: false },
    };
    let is_data = request.path.starts_with("/api/") || request.path == "/events";
    let verdict = site.door.look(request);
    if site.door.has_login() && !matches!(verdict, Admission::Refuse(..)) {
        match (request.path.as_str(), &request.method) {
            ("/login", &Method::POST) => return login::enter(&nobody()),
            ("/login", _) => return login::show(&nobody()),
            ("/logout", &Method::POST) => return login::leave(&nobody()),
            _ => {}
        }
    }
    match verdict {
        Admission::Enter(visitor) => find(dashboard, &RequestContext { site, request, visitor }),
        Admission::Ask if is_data => respond::json(
            401,
            &serde_json::json!({ "error": format!("log in first, at {}", site.base.link("/login")) }),
        ),
        Admission::Ask => login::ask(site, request),
        Admission::Refuse(status, why) if is_data => respond::json(status, &serde_json::json!({ "error": why })),
        Admission::Refuse(status, why) => notice::page(site, status, &Frame::still(&nobody(), "Not allowed"), why, ""),
    }
}

fn find(dashboard: &Dashboard, visit: &RequestContext<'_>) -> Response {
    // The path is split before it is decoded, because a name may contain a slash.
    let mut parts = Vec::new();
    for part in visit.request.path.trim_start_matches('/').split('/') {
        match percent_decode_str(part).decode_utf8() {
            Ok(part) => parts.push(part.into_owned()),
            Err(_) => return unknown(visit),
        }
    }
    let parts = parts.iter().map(String::as_str).collect::<Vec<_>>();
    if visit.request.method == Method::POST {
        return match parts.as_slice() {
            ["anomalies", topic, partition, offset, "marks"] => match AnomalyId::read(topic, partition, offset) {
                Some(id) => {
                    let response = review::make(visit, &id);
                    dashboard.pages.explain.cache().forget(&id);
                    response
                }
                None => unknown(visit),
            },
            _ => unknown(visit),
        };
    }
    match parts.as_slice() {
        ["keys"] => match PageQuery::read(&visit.request.query, query::PLAIN) {
            Ok(query) => keys::show(visit, &query),
            Err(error) => cached_page::misread(visit, &error),
        },
        ["events"] => match PageQuery::read(&visit.request.query, query::STREAM) {
            Ok(asked) => live::stream(&dashboard.hub, visit, &asked),
            Err(misread) => misread_json(&misread),
        },
        ["api", "openapi.json"] => api::description(visit.site),
        ["api", "v1", name @ ("anomalies" | "anomalies.csv" | "anomalies.jsonl")] => {
            match (PageQuery::read(&visit.request.query, query::API), *name) {
                (Err(misread), _) => misread_json(&misread),
                (Ok(asked), "anomalies") => api(dashboard, &asked),
                (Ok(asked), "anomalies.csv") => export::answer(visit, &asked, export::ExportFormat::Csv),
                (Ok(asked), _) => export::answer(visit, &asked, export::ExportFormat::JsonLines),
            }
        }
        ["api", ..] => {
            let known = "there is no such address; known: /api/v1/anomalies, .csv, .jsonl, and /api/openapi.json";
            respond::json(404, &serde_json::json!({ "error": known }))
        }
        path => dashboard.pages.answer(visit, path).unwrap_or_else(|| unknown(visit)),
    }
}

/// Answers a request whose path does not exist.
pub fn unknown(visit: &RequestContext<'_>) -> Response {
    let frame = Frame::still(visit, "Not found");
    notice::page(visit.site, 404, &frame, "There is no such page.", "The address is not one of this dashboard's.")
}

fn misread_json(misread: &QueryError) -> Response {
    respond::json(400, &serde_json::json!({ "error": misread.message, "parameter": misread.parameter }))
}

/// Answers `/api/v1/anomalies`. In an outage it answers with an error, since a program would take old data for new.
fn api(dashboard: &Dashboard, asked: &PageQuery) -> Response {
    let got = dashboard.pages.list.get(&dashboard.site, asked);
    match (got.answer, got.why) {
        (Some((data, _)), None) => respond::json(200, &api::ApiDocument::of(&data)),
        (_, why) => notice::json_away(&why.unwrap_or(NoNewAnswer::Slow)),
    }
}
