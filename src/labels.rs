//! Enums whose variants are label values of metrics and words in logs.

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
/// It gets `ALL`, every variant in the order of definition, which is that of `variant as usize`; `LABELS`, their labels in the same
/// order; and `as_str`. All of them come from this one definition, so none can lack a variant.
///
/// The labels are written out and not derived from the variants' names: they are a contract with dashboards and alerts, which the
/// name of a variant is not.
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
