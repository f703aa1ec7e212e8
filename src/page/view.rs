//! The pages, one file each, and the parts that they share. Templates only lay out values; every value is computed in
//! Rust.

pub mod api;
pub mod dead_letters;
pub mod detection;
pub mod device;
pub mod devices;
pub mod explain;
pub mod export;
pub mod filters;
pub mod format;
pub mod keys;
pub mod links;
pub mod list;
pub mod login;
pub mod review;
pub mod notice;
pub mod overview;
pub mod overview_data;
pub mod reports;
pub mod row;
pub mod banner;
pub mod text;
pub mod trend;
pub mod verdict;
