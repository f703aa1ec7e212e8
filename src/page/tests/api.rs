//! Tests of the API and the exports.

use super::*;

#[test]
fn the_api_gives_records_as_they_are_and_the_next_key() {
    let (_, handler) = pages(1.0, 9);
    let (response, body) = get(&handler, "/api/v1/anomalies?limit=1");
    assert_eq!((response.status, header(&response, "content-type")), (200, Some("application/json")));
    let json = serde_json::from_str::<serde_json::Value>(&body).unwrap();
    let mut first = json["anomalies"][0].clone();
    assert_eq!(first.as_object_mut().unwrap().remove("detected_at").unwrap(), "2026-11-23T17:00:12.000Z");
    let read = serde_json::from_value::<Anomaly>(first).unwrap();
    assert_eq!((read.device_id.as_str(), read.z_score), (HOSTILE, Some(8.0)));
    let next = json["next"].as_str().unwrap();
    assert_eq!(get(&handler, &format!("/api/v1/anomalies?limit=1&before={next}")).0.status, 200);
    assert!(get(&handler, "/api/v1/anomalies").1.ends_with("\"next\":null,\"prev\":null,\"cursor\":\"c1-7\"}"));
}

#[test]
fn exports_have_every_record_and_no_formula() {
    let (_, handler) = pages(1.0, 9);
    let (response, csv) = get(&handler, "/api/v1/anomalies.csv");
    assert_eq!(header(&response, "content-type"), Some("text/csv; charset=utf-8"));
    let rows = csv::Reader::from_reader(csv.as_bytes()).into_records().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!((rows.len(), rows[0].get(1)), (1, Some(HOSTILE)));
    let (_, lines) = get(&handler, "/api/v1/anomalies.jsonl?limit=1");
    let record = serde_json::from_str::<serde_json::Value>(lines.trim_end()).unwrap();
    assert_eq!(record["device_id"], HOSTILE);
}

#[test]
fn the_description_of_the_api_names_every_parameter_and_no_other() {
    let (_, handler) = pages(1.0, 9);
    let (_, body) = get(&handler, "/api/openapi.json");
    let description = serde_json::from_str::<serde_json::Value>(&body).unwrap();
    let parameters = description["paths"]["/api/v1/anomalies"]["get"]["parameters"].as_array().unwrap();
    let names = parameters.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(names, crate::page::query::API.concat());
}
