//! The limits of a series. Each limit is declared in `series_limits!`, and nowhere else. The settings of all series, the
//! overrides, the policy, and the text of `anomaly check --series` come from this declaration.

/// Passes the declarations of all limits to another macro, after its own argument. A declaration has documentation,
/// name, type, default, and the range in the words of the settings (`config::declare::ValueType`).
///
/// A default must never change: snapshots store only the limits that differ from it.
macro_rules! series_limits {
    ($then:ident! { $($argument:tt)* }) => {
        $then! { { $($argument)* } {
            /// Method that judges values. sigma: mean and deviation of the window. ewma: exponentially weighted mean and deviation
            /// whose span is the window. adaptive: forecast, season, constant values and regime of a series, by how rarely it shows
            /// as much.
            method: String = "sigma", METHOD;
            /// Number of preceding values that a value is compared with.
            window: usize = 100, Integer(2, 100_000);
            /// Number of standard deviations from the mean beyond which a value is abnormal.
            threshold: f64 = 3.0, Float(0.01, 1e6);
            /// Number of preceding values that a series needs before its values are judged.
            min_samples: usize = 30, Integer(2, 100_000);
            /// Lower limit of the deviation used for judging, in the value's unit.
            min_std_dev: f64 = 0.0, Float(0.0, f64::MAX);
            /// Lower limit of the deviation used for judging, as a share of |mean|.
            min_relative_std_dev: f64 = 0.0, Float(0.0, 1e6);
        } }
    };
}

/// Writes a default as a value of its type.
macro_rules! default_limit {
    (String $default:tt) => {
        String::from($default)
    };
    ($type:ident $default:tt) => {
        $default
    };
}

/// Defines the struct of all limits.
macro_rules! limits {
    ({} { $($(#[doc = $doc:literal])+ $key:ident: $type:ident = $default:tt, $range:expr;)* }) => {
        /// Method and limits of one series.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $key: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Limits { $($key: default_limit!($type $default),)* }
            }
        }
    };
}

series_limits! { limits! {} }

pub(crate) use series_limits;
