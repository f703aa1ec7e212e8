//! The pages, one file each, and the parts that they share. Templates only lay out values; every value is computed in
//! Rust.

pub(crate) mod api;
pub(crate) mod banner;
pub(crate) mod dead_letters;
pub(crate) mod detection;
pub(crate) mod device;
pub(crate) mod devices;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod filters;
pub(crate) mod format;
pub(crate) mod keys;
pub(crate) mod links;
pub(crate) mod list;
pub(crate) mod login;
pub(crate) mod notice;
pub(crate) mod overview;
pub(crate) mod overview_data;
pub(crate) mod reports;
pub(crate) mod review;
pub(crate) mod row;
pub(crate) mod text;
pub(crate) mod trend;
pub(crate) mod verdict;
