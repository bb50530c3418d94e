//! Host names, as rules have them and as DNS has them, in one form.

use std::fmt;
use std::str::FromStr;

use super::parse::ParseRuleError;

/// The name of a host: labels of 1 to 63 letters, digits, hyphens and underscores, 253 octets at the most
/// (RFC 1035 section 2.3.4), in lower case and without the final dot.
///
/// A name outside ASCII is written in its A-labels (`xn--…`, RFC 5890), as DNS has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Box<str>);

impl HostName {
    /// The name, in lower case and without the final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, ParseRuleError> {
        let name = normal(text).ok_or_else(|| ParseRuleError::Name(text.to_owned()))?;
        // An address with a slip of the finger is no name (RFC 1123 section 2.1).
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseRuleError::Address(text.to_owned()));
        }
        Ok(Self(name))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The form in which names are compared, or `None` if no rule could mention this one.
pub(crate) fn normal(name: &str) -> Option<Box<str>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let is_name = name.len() <= 253 && name.split('.').all(label);
    is_name.then(|| name.to_ascii_lowercase().into())
}

/// The name, and everything that it lies under, from the longest to the shortest: the keys under which a
/// suffix can stand that covers it. 127 at the most.
pub(super) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(name);
    std::iter::from_fn(move || {
        let this = rest?;
        rest = this.split_once('.').map(|(_, parent)| parent);
        Some(this)
    })
}
