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
use super::view::links;
use super::view::{api, export, keys, login, notice, review};
use super::{live, respond};
use crate::archive::AnomalyAddress;
use crate::http::{Request, Response};

/// Answers any request to the dashboard.
pub(crate) fn answer(dashboard: &Dashboard, mut request: Request) -> Response {
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
    respond::packed(respond::guarded(answer, site.is_tls_only && site.auth.is_encrypted(request)), request)
}

fn enter(dashboard: &Dashboard, request: &Request) -> Response {
    let site = &dashboard.site;
    let anonymous = || RequestContext {
        site,
        request,
        visitor: Visitor { name: String::new(), is_operator: false, can_leave: false },
    };
    let is_data = request.path.starts_with("/api/") || request.path == "/events";
    let verdict = site.auth.admit(request);
    if site.auth.has_login() && !matches!(verdict, Admission::Refuse(..)) {
        match (request.path.as_str(), &request.method) {
            ("/login", &Method::POST) => return login::enter(&anonymous()),
            ("/login", _) => return login::show(&anonymous()),
            ("/logout", &Method::POST) => return login::leave(&anonymous()),
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
        Admission::Refuse(status, why) => {
            notice::page(site, status, &Frame::still(&anonymous(), "Not allowed"), why, "")
        }
    }
}

fn find(dashboard: &Dashboard, context: &RequestContext<'_>) -> Response {
    // The path is split before it is decoded, because a name may contain a slash.
    let mut parts = Vec::new();
    for part in context.request.path.trim_start_matches('/').split('/') {
        match percent_decode_str(part).decode_utf8() {
            Ok(part) => parts.push(part.into_owned()),
            Err(_) => return unknown(context),
        }
    }
    let parts = parts.iter().map(String::as_str).collect::<Vec<_>>();
    if context.request.method == Method::POST {
        return post(dashboard, context, &parts);
    }
    match parts.as_slice() {
        ["keys"] => match PageQuery::read(&context.request.query, query::PLAIN) {
            Ok(query) => keys::show(context, &query),
            Err(error) => cached_page::misread(context, &error),
        },
        ["events"] => match PageQuery::read(&context.request.query, query::STREAM) {
            Ok(query) => live::stream(&dashboard.hub, context, &query),
            Err(misread) => misread_json(&misread),
        },
        ["api", path @ ..] => get_data(dashboard, context, path),
        // This is the first anomaly of a record, for users who know only the position in Kafka.
        ["anomalies", topic, partition, offset] => {
            let place = [*topic, *partition, *offset];
            with_address(
                context,
                |generation| links::record_address(place, generation),
                |address| respond::see_other(context.site, &first(context, address)),
            )
        }
        path => dashboard.pages.answer(context, path).unwrap_or_else(|| unknown(context)),
    }
}

/// Answers a request that stores a review.
fn post(dashboard: &Dashboard, context: &RequestContext<'_>, path: &[&str]) -> Response {
    let ["anomalies", topic, partition, offset, index, kind, "reviews"] = *path else { return unknown(context) };
    let place = [topic, partition, offset, index, kind];
    with_address(
        context,
        |generation| links::anomaly_address(place, generation),
        |address| {
            let response = review::add(context, address);
            // The page may have been requested with the generation, and without.
            dashboard.pages.explain.cache().forget(|other| other.is_at(address));
            response
        },
    )
}

/// Answers a request of the API; `path` is what follows `/api`.
fn get_data(dashboard: &Dashboard, context: &RequestContext<'_>, path: &[&str]) -> Response {
    let format = match path {
        ["openapi.json"] => return api::description(context.site),
        ["v1", "anomalies"] => None,
        ["v1", "anomalies.csv"] => Some(export::ExportFormat::Csv),
        ["v1", "anomalies.jsonl"] => Some(export::ExportFormat::JsonLines),
        _ => {
            let known = "there is no such address; known: /api/v1/anomalies, .csv, .jsonl, and /api/openapi.json";
            return respond::json(404, &serde_json::json!({ "error": known }));
        }
    };
    match (PageQuery::read(&context.request.query, query::API), format) {
        (Err(misread), _) => misread_json(&misread),
        (Ok(query), None) => api(dashboard, &query),
        (Ok(query), Some(format)) => export::answer(context, &query, format),
    }
}

/// Answers a request whose path is the address of an anomaly, with or without its generation in the query.
fn with_address(
    context: &RequestContext<'_>,
    parse: impl Fn(Option<i32>) -> Option<AnomalyAddress>,
    answer: impl FnOnce(&AnomalyAddress) -> Response,
) -> Response {
    if parse(None).is_none() {
        return unknown(context);
    }
    match PageQuery::read(&context.request.query, query::ANOMALY) {
        Ok(query) => parse(query.generation).as_ref().map_or_else(|| unknown(context), answer),
        Err(error) => cached_page::misread(context, &error),
    }
}

/// Returns the URL of the first anomaly of a record, or that of its first value if there is none or no answer.
fn first(context: &RequestContext<'_>, record: &AnomalyAddress) -> String {
    match context.site.archive.find(record) {
        Ok(Some(first)) => links::anomaly_url(&first),
        _ => links::address_url(&AnomalyAddress { value: Some((0, "point".to_owned())), ..record.clone() }),
    }
}

/// Answers a request whose path does not exist.
pub(crate) fn unknown(context: &RequestContext<'_>) -> Response {
    let frame = Frame::still(context, "Not found");
    notice::page(context.site, 404, &frame, "There is no such page.", "This dashboard has no page with this URL.")
}

fn misread_json(misread: &QueryError) -> Response {
    respond::json(400, &serde_json::json!({ "error": misread.message, "parameter": misread.parameter }))
}

/// Answers `/api/v1/anomalies`. In an outage it answers with an error, since a program would take old data for new.
fn api(dashboard: &Dashboard, query: &PageQuery) -> Response {
    let got = dashboard.pages.list.get(&dashboard.site, query);
    match (got.answer, got.why) {
        (Some((data, _)), None) => respond::json(200, &api::ApiDocument::of(&data)),
        (_, why) => notice::json_away(&why.unwrap_or(NoNewAnswer::Slow)),
    }
}
