//! One file for each page: what it asks of the archive, and what its template gets. Templates lay out; they compute nothing.

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
