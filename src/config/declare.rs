//! What a setting is, and the macro that declares sections of settings. From one declaration come the typed struct, the
//! checks, `anomaly check`, the shipped files, the manual page and the options of commands.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::event::Timestamp;

/// Which of the shipped files shows a key. Any file may set any key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShippedFile {
    /// `common.toml`
    Common,
    /// `producer.toml`
    Producer,
    /// `detector.toml`
    Detector,
    /// `dashboard.toml`
    Dashboard,
}

impl ShippedFile {
    /// All, in the order of the pipeline.
    pub const ALL: [ShippedFile; 4] =
        [ShippedFile::Common, ShippedFile::Producer, ShippedFile::Detector, ShippedFile::Dashboard];

    /// File name without the directory.
    pub fn name(self) -> &'static str {
        match self {
            ShippedFile::Common => "common.toml",
            ShippedFile::Producer => "producer.toml",
            ShippedFile::Detector => "detector.toml",
            ShippedFile::Dashboard => "dashboard.toml",
        }
    }
}

/// Type and range of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueType {
    /// Any string.
    Text,
    /// Path of a file, or "".
    Path,
    /// A string that is never printed.
    Secret,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A whole number, both ends included.
    Integer(i64, i64),
    /// A finite number, both ends included.
    Float(f64, f64),
    /// `true` or `false`.
    Bool,
    /// A string such as "250ms", "10s", "1h 30m", between these many milliseconds.
    Duration(u64, u64),
    /// A string "host:port" with an IP address, or "off".
    Listen,
    /// An RFC 3339 time, or "".
    Time,
    /// A duration of more than nothing, or "".
    Step,
    /// A list of strings; in an environment variable, one string with commas.
    List,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct SettingKey {
    /// Section and name, joined by a dot.
    pub path: &'static str,
    /// Name within the section.
    pub name: &'static str,
    /// Type and range.
    pub kind: ValueType,
    /// As TOML.
    pub default: &'static str,
    /// The shipped file that shows it.
    pub file: ShippedFile,
    /// Documentation.
    pub doc: &'static str,
}

/// The settings below one header in a file.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// As in the header.
    pub name: &'static str,
    /// Documentation.
    pub doc: &'static str,
    /// The shipped file that shows it.
    pub file: ShippedFile,
    /// In the order in which the files show them.
    pub keys: &'static [SettingKey],
}

/// Tables of which the files may have any number, each below a header such as `[[detector.override]]`.
#[derive(Debug, Clone, Copy)]
pub struct TableList {
    /// As in the header.
    pub path: &'static str,
    /// The keys of each table; none is required.
    pub keys: &'static [SettingKey],
}

/// Declares all sections: a struct for each, the struct of them all, and the list that everything else reads.
///
/// ```text
/// /// Documentation of the section.
/// name: struct Type in ShippedFile {
///     /// Documentation of the setting.
///     key: RustType = default as TOML, type and range;
///     also { fields that are no single settings }
/// }
/// ```
///
/// `core` in place of `struct` names a struct of the core, which must have a field of that name and type for each setting.
macro_rules! settings {
    ($(#[doc = $all_doc:literal])+ $all:ident {$(
        $(#[doc = $about:literal])+
        $section:ident: $form:ident $type:ident in $file:ident {
            $($(#[doc = $doc:literal])+ $key:ident: $rust:ty = $default:tt, $kind:expr;)*
            $(also { $($also:tt)* })?
        }
    )*}) => {
        $($crate::config::declare::section! {
            $form $type
            { $(#[doc = $about])+ }
            { $({ $(#[doc = $doc])+ } $key: $rust,)* }
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
                keys: &[$($crate::config::declare::SettingKey {
                    path: concat!(stringify!($section), ".", stringify!($key)),
                    name: stringify!($key),
                    kind: $kind,
                    default: stringify!($default),
                    file: ShippedFile::$file,
                    doc: concat!($($doc),+).trim_ascii(),
                }),*],
            }),*]
        };
    };
}

/// The struct of one section.
macro_rules! section {
    (struct $type:ident { $($about:tt)+ } { $({ $($doc:tt)+ } $key:ident: $rust:ty,)* } { $($also:tt)* }) => {
        $($about)+
        #[derive(Clone, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(rustdoc::broken_intra_doc_links)]
        pub struct $type {
            $(
                $($doc)+
                #[serde(deserialize_with = "crate::config::declare::SettingType::read")]
                pub $key: $rust,
            )*
            $($also)*
        }

        impl std::fmt::Debug for $type {
            /// Without the fields that are no single settings: these may contain secrets.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type))$(.field(stringify!($key), &self.$key))*.finish_non_exhaustive()
            }
        }
    };
    (core $type:ident { $($about:tt)+ } { $({ $($doc:tt)+ } $key:ident: $rust:ty,)* } {}) => {
        const _: fn(&$type) = |section| {
            $(let _: &$rust = &section.$key;)*
        };
    };
}

/// Declares lists of tables: a struct for the tables of each, and the list that everything else reads.
macro_rules! tables {
    ($(
        $(#[doc = $about:literal])+
        $section:ident.$table:ident: struct $type:ident in $file:ident {
            $($(#[doc = $doc:literal])+ $key:ident: $rust:ty, $kind:expr;)*
        }
    )*) => {
        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, PartialEq, serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $type {
                $($(#[doc = $doc])+ pub $key: Option<$rust>,)*
            }
        )*

        /// All lists of tables.
        pub const TABLES: &[$crate::config::declare::TableList] = {
            use $crate::config::declare::{ShippedFile, ValueType::*};
            &[$($crate::config::declare::TableList {
                path: concat!(stringify!($section), ".", stringify!($table)),
                keys: &[$($crate::config::declare::SettingKey {
                    path: concat!(stringify!($section), ".", stringify!($table), ".", stringify!($key)),
                    name: stringify!($key),
                    kind: $kind,
                    default: "none",
                    file: ShippedFile::$file,
                    doc: concat!($($doc),+).trim_ascii(),
                }),*],
            }),*]
        };
    };
}

/// Declares an enum of which a setting is one, each variant with its word.
macro_rules! choice {
    ($(#[$about:meta])+ $type:ident { $($(#[$doc:meta])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
        pub enum $type {
            $($(#[$doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $type {
            /// The words of the variants.
            pub const WORDS: &[&str] = &[$($word),+];
        }

        $crate::config::declare::plain!($type);
    };
}

/// A type that a field of a section may have.
pub trait SettingType: Sized {
    /// Reads a value that fits its declaration.
    ///
    /// # Errors
    /// When the value is not of this type.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Types that read themselves.
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

pub(super) use {choice, plain, section, settings, tables};
