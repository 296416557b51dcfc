//! The ceilings, a table compiled into this program.

use std::collections::BTreeMap;

use super::Result;

/// The ceilings not yet taken, by the name of the figure.
pub(super) struct Ceilings(BTreeMap<String, f64>);

impl Ceilings {
    /// Parses lines of a name, a ceiling and a reason, separated by tabs. `#` starts a comment line.
    ///
    /// # Errors
    ///
    /// If a line is malformed, or a name occurs twice.
    pub(super) fn read(text: &str) -> Result<Self> {
        let mut ceilings = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let [name, ceiling, _reason] = line.split('\t').collect::<Vec<_>>()[..] else {
                return Err(
                    format!("a ceiling is a name, a number and a reason, separated by tabs, not {line:?}").into()
                );
            };
            let ceiling = ceiling.parse().map_err(|error| format!("the ceiling of {name:?}: {error}"))?;
            if ceilings.insert(name.to_owned(), ceiling).is_some() {
                return Err(format!("{name:?} has two ceilings").into());
            }
        }
        Ok(Self(ceilings))
    }

    /// Takes the ceiling of the figure `name`, if it has one.
    pub(super) fn take(&mut self, name: &str) -> Option<f64> {
        self.0.remove(name)
    }

    /// Checks that every ceiling was taken.
    ///
    /// # Errors
    ///
    /// If a ceiling belongs to no figure.
    pub(super) fn all_taken(&self) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("there is a ceiling for {name:?}, but no such figure").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_at_most_one_ceiling() {
        let mut ceilings =
            Ceilings::read("# a comment\n\na b\t2.5\twhy\nc\t3\twhy\n").expect("the table is well-formed");
        assert_eq!((ceilings.take("a b"), ceilings.take("a b"), ceilings.take("d")), (Some(2.5), None, None));
        let left = ceilings.all_taken().expect_err("c is left");
        assert!(left.to_string().contains("\"c\""), "{left}");
        assert_eq!(ceilings.take("c"), Some(3.0));
        ceilings.all_taken().expect("no ceiling is left");
    }

    #[test]
    fn malformed_ceilings_are_rejected() {
        for text in ["a\t1", "a\tmany\twhy", "a 1 why", "a\t1\twhy\na\t2\twhy"] {
            assert!(Ceilings::read(text).is_err(), "{text:?}");
        }
        Ceilings::read(include_str!("../ceilings.tsv")).expect("the ceilings in use are well-formed");
    }
}
