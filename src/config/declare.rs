//! The type that describes a setting, and the macros that declare sections of settings. The typed struct, the checks,
//! `anomaly check`, the shipped files, the manual page and the options of commands come from one declaration.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::event::Timestamp;

/// The shipped file that shows a key. Any file may set any key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShippedFile {
    /// `common.toml`, which every role reads
    Common,
    /// `producer.toml`, which only the producer reads
    Producer,
    /// `detector.toml`, which only the detector reads
    Detector,
    /// `dashboard.toml`, which only the dashboard reads
    Dashboard,
}

impl ShippedFile {
    /// All files, in the order of the pipeline.
    pub const ALL: [ShippedFile; 4] =
        [ShippedFile::Common, ShippedFile::Producer, ShippedFile::Detector, ShippedFile::Dashboard];

    /// Returns the file name without the directory.
    pub fn name(self) -> &'static str {
        match self {
            ShippedFile::Common => "common.toml",
            ShippedFile::Producer => "producer.toml",
            ShippedFile::Detector => "detector.toml",
            ShippedFile::Dashboard => "dashboard.toml",
        }
    }
}

/// Type and range of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueType {
    /// A string without further limits.
    Text,
    /// Path of a file; "" is none.
    Path,
    /// A string that is never printed.
    Secret,
    /// One of these strings, and no other.
    OneOf(&'static [&'static str]),
    /// A whole number between these two numbers, both included.
    Integer(i64, i64),
    /// A finite number between these two numbers, both included.
    Float(f64, f64),
    /// A Boolean, `true` or `false`.
    Bool,
    /// A string such as "250ms", "10s" or "1h 30m", between these two numbers of milliseconds.
    Duration(u64, u64),
    /// A string "host:port" with an IP address, or "off".
    Listen,
    /// A time as in RFC 3339; "" is none.
    Time,
    /// A duration longer than zero; "" is none.
    Step,
    /// A list of strings. In an environment variable it is one string with commas.
    List,
}

/// Declaration of one setting, from which all its uses come.
#[derive(Debug, Clone, Copy)]
pub struct SettingKey {
    /// Path of the setting: section and name, joined by a dot.
    pub path: &'static str,
    /// Name of the setting within its section.
    pub name: &'static str,
    /// Type and range of the value.
    pub kind: ValueType,
    /// Default value, written as TOML.
    pub default: &'static str,
    /// The shipped file that shows the setting.
    pub file: ShippedFile,
    /// Documentation for users, in plain text.
    pub doc: &'static str,
}

/// The settings below one header in a file.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Name as it is written in the header.
    pub name: &'static str,
    /// Documentation for users, in plain text.
    pub doc: &'static str,
    /// The shipped file that shows the section.
    pub file: ShippedFile,
    /// The settings, in the order in which the files show them.
    pub keys: &'static [SettingKey],
}

/// A list of tables. The files may have any number of them, each below a header such as `[[detector.override]]`.
#[derive(Debug, Clone, Copy)]
pub struct TableList {
    /// Path as it is written in the header.
    pub path: &'static str,
    /// Documentation for users, in plain text.
    pub doc: &'static str,
    /// Section that it belongs to.
    pub section: &'static str,
    /// The keys of each table; none of them is required.
    pub keys: &'static [SettingKey],
}

/// Declares all sections: a struct for each section, the struct of all sections, and the list that all other code
/// reads. The first argument has the sections, the second one the limits of a series (`crate::limits`).
///
/// ```text
/// /// Documentation of the section.
/// name: struct Type in ShippedFile {
///     limits of_series;                 (the section begins with all limits of a series)
///     /// Documentation of the setting.
///     key: RustType = default as TOML, type and range;
///     also { fields that are no single settings }
/// }
/// ```
///
/// With `core` in place of `struct`, a section uses a struct of the core. That struct must have a field of the same
/// name and type for each setting.
macro_rules! settings {
    ({ $(#[doc = $all_doc:literal])+ $all:ident {$(
        $(#[doc = $about:literal])+
        $section:ident: $form:ident $type:ident in $file:ident {
            $(limits $of:ident;)?
            $($(#[doc = $doc:literal])+ $key:ident: $rust:ty = $default:tt, $kind:expr;)*
            $(also { $($also:tt)* })?
        }
    )*} } $limits:tt) => {
        $($crate::config::declare::section! {
            $form $type
            { $(#[doc = $about])+ }
            { $($of $limits)? }
            { $($(#[doc = $doc])+ $key: $rust = $default, $kind;)* }
            { $($($also)*)? }
        })*

        $(#[doc = $all_doc])+
        #[derive(Debug, Clone, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(rustdoc::broken_intra_doc_links)]
        pub struct $all {
            $($(#[doc = $about])+ pub $section: $type,)*
        }

        /// All sections, in the order in which the files show them.
        pub const SECTIONS: &[$crate::config::declare::Section] = {
            use $crate::config::declare::{ShippedFile, ValueType::*};
            &[$($crate::config::declare::Section {
                name: stringify!($section),
                doc: concat!($($about),+).trim_ascii(),
                file: ShippedFile::$file,
                keys: $crate::config::declare::section_keys! {
                    $section $file
                    { $($of $limits)? }
                    { $($(#[doc = $doc])+ $key: $rust = $default, $kind;)* }
                },
            }),*]
        };
    };
}

/// Defines the struct of one section.
macro_rules! section {
    ($form:ident $type:ident $about:tt { $of:ident { $($limits:tt)* } } { $($keys:tt)* } $also:tt) => {
        $crate::config::declare::section! { $form $type $about {} { $($limits)* $($keys)* } $also }
    };
    (struct $type:ident { $($about:tt)+ } {}
        { $($(#[doc = $doc:literal])+ $key:ident: $rust:ty = $default:tt, $kind:expr;)* } { $($also:tt)* }
    ) => {
        $($about)+
        #[derive(Clone, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(rustdoc::broken_intra_doc_links)]
        pub struct $type {
            $(
                $(#[doc = $doc])+
                #[serde(deserialize_with = "crate::config::declare::SettingType::read")]
                pub $key: $rust,
            )*
            $($also)*
        }

        impl std::fmt::Debug for $type {
            /// Fields that are not single settings are left out, because they may contain secrets.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type))$(.field(stringify!($key), &self.$key))*.finish_non_exhaustive()
            }
        }
    };
    (core $type:ident { $($about:tt)+ } {}
        { $($(#[doc = $doc:literal])+ $key:ident: $rust:ty = $default:tt, $kind:expr;)* } {}
    ) => {
        const _: fn(&$type) = |section| {
            $(let _: &$rust = &section.$key;)*
        };
    };
}

/// Lists the settings of one section.
macro_rules! section_keys {
    ($section:ident $file:ident { $of:ident { $($limits:tt)* } } { $($keys:tt)* }) => {
        $crate::config::declare::section_keys! { $section $file {} { $($limits)* $($keys)* } }
    };
    ($section:ident $file:ident {}
        { $($(#[doc = $doc:literal])+ $key:ident: $rust:ty = $default:tt, $kind:expr;)* }
    ) => {
        &[$($crate::config::declare::SettingKey {
            path: concat!(stringify!($section), ".", stringify!($key)),
            name: stringify!($key),
            kind: $kind,
            default: stringify!($default),
            file: ShippedFile::$file,
            doc: concat!($($doc),+).trim_ascii(),
        }),*]
    };
}

/// Declares lists of tables: the list that all other code reads. The tables are structs of the core. Each must have an
/// optional field of the same name and type for each key, and for each limit of a series.
macro_rules! tables {
    ({ $(
        $(#[doc = $about:literal])+
        $section:ident.$table:ident: core $type:ident in $file:ident {
            $($(#[doc = $doc:literal])+ $key:ident: $rust:ty, $kind:expr;)*
            limits of_series;
        }
    )* } $limits:tt) => {
        /// All lists of tables, in the order of their declaration.
        pub const TABLES: &[$crate::config::declare::TableList] = {
            use $crate::config::declare::{ShippedFile, ValueType::*};
            &[$($crate::config::declare::TableList {
                path: concat!(stringify!($section), ".", stringify!($table)),
                doc: concat!($($about),+).trim_ascii(),
                section: stringify!($section),
                keys: $crate::config::declare::table_keys! {
                    $section $table $type $file { $($(#[doc = $doc])+ $key: $rust, $kind;)* } $limits
                },
            }),*]
        };
    };
}

/// Lists the keys of one list of tables, and then the limits of a series.
macro_rules! table_keys {
    ($section:ident $table:ident $type:ident $file:ident
        { $($(#[doc = $doc:literal])+ $key:ident: $rust:ty, $kind:expr;)* }
        { $($(#[doc = $limit_doc:literal])+ $limit:ident: $limit_type:ty = $default:tt, $range:expr;)* }
    ) => {{
        const _: fn(&$type) = |table| {
            $(let _: &Option<$rust> = &table.$key;)*
            $(let _: &Option<$limit_type> = &table.$limit;)*
        };
        &[
            $($crate::config::declare::SettingKey {
                path: concat!(stringify!($section), ".", stringify!($table), ".", stringify!($key)),
                name: stringify!($key),
                kind: $kind,
                default: "none",
                file: ShippedFile::$file,
                doc: concat!($($doc),+).trim_ascii(),
            },)*
            $($crate::config::declare::SettingKey {
                path: concat!(stringify!($section), ".", stringify!($table), ".", stringify!($limit)),
                name: stringify!($limit),
                kind: $range,
                default: "none",
                file: ShippedFile::$file,
                doc: concat!("In place of ", stringify!($section), ".", stringify!($limit), "."),
            },)*
        ]
    }};
}

/// Declares an enum for a setting, with the word of each variant.
macro_rules! choice {
    ($(#[$about:meta])+ $type:ident { $($(#[$doc:meta])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
        pub enum $type {
            $($(#[$doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $type {
            /// Words of the variants, as written in a file.
            pub const WORDS: &[&str] = &[$($word),+];
        }

        $crate::config::declare::plain!($type);
    };
}

/// A type that a field of a section may have.
pub(crate) trait SettingType: Sized {
    /// Reads a value that fits its declaration.
    ///
    /// # Errors
    /// When the value is not of this type.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Implements the trait for types that serde can read unchanged.
macro_rules! plain {
    ($($type:ty),+) => {$(
        impl $crate::config::declare::SettingType for $type {
            fn read<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde::Deserialize::deserialize(deserializer)
            }
        }
    )+};
}

plain!(String, bool, i32, i64, u16, u32, u64, usize, f64, Vec<String>);

impl SettingType for Duration {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        humantime::parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl SettingType for Option<Duration> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        humantime::parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
    }
}

impl SettingType for Option<Timestamp> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Timestamp::parse_rfc3339(&String::deserialize(deserializer)?))
    }
}

pub(super) use {choice, plain, section, section_keys, settings, table_keys, tables};
