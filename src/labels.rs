//! Enums with a label per variant, for metrics and logs.

/// Defines an enum together with the label of each variant:
///
/// ```ignore
/// labels! {
///     /// Why a connection was closed.
///     pub enum CloseReason {
///         /// By the proxy: it was idle.
///         Idle = "idle",
///     }
/// }
/// ```
///
/// The enum gets `ALL`, its variants in the order of definition (the order of `variant as usize`); `LABELS`, their labels in the same
/// order; and `as_str`. All three come from this one definition, so none can lack a variant.
///
/// The labels are written out and not derived from the names of the variants, because dashboards and alerts depend on the labels and
/// not on the names.
macro_rules! labels {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $label:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        #[allow(dead_code, reason = "not every enum needs all of these")]
        impl $name {
            /// Every variant, in the order of definition.
            $visibility const ALL: [Self; Self::LABELS.len()] = [$(Self::$variant),+];

            /// The label of each variant, in the order of definition.
            $visibility const LABELS: [&'static str; [$($label),+].len()] = [$($label),+];

            /// The label in logs and metrics.
            $visibility const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    labels! {
        enum Fruit {
            Apple = "apple",
            BloodOrange = "blood_orange",
        }
    }

    #[test]
    fn variants_and_labels_have_the_same_order() {
        assert_eq!(Fruit::LABELS, ["apple", "blood_orange"]);
        assert_eq!(Fruit::ALL.map(Fruit::as_str), Fruit::LABELS);
        assert_eq!(Fruit::ALL.map(|fruit| fruit as usize), [0, 1]);
    }
}
