//! The syntax of rules: `[tcp:|udp:|icmp:]TARGET[:PORT[-PORT]]`.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use super::{Action, Rule, Target};
use crate::handle::Protocol;

/// What is wrong with the text of a rule, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseRuleError {
    /// There is no target.
    Empty,
    /// The text says neither `allow` nor `deny`; only what [`FromStr`] parses must.
    Action(String),
    /// Not an address, nor a prefix in CIDR notation.
    Address(String),
    /// Not a host name.
    Name(String),
    /// Not a port of 1 to 65,535, nor two of them in order.
    Ports(String),
    /// `[` without `]`, or something else than a port behind it.
    Brackets(String),
    /// ICMP has no ports.
    IcmpPorts,
}

impl fmt::Display for ParseRuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(
                "a rule needs a target: *, an address, a CIDR prefix, a name, or .name for all below it",
            ),
            Self::Action(text) => {
                write!(f, "{text:?} begins with neither \"allow \" nor \"deny \"")
            }
            Self::Address(text) => write!(f, "{text:?} is no IP address and no CIDR prefix"),
            Self::Name(text) => write!(
                f,
                "{text:?} is no host name: labels of 1 to 63 letters, digits, - and _; others as xn--…"
            ),
            Self::Ports(text) => {
                write!(f, "{text:?} is no port and no range of ports: 1 to 65535, low-high")
            }
            Self::Brackets(text) => {
                write!(f, "{text:?} has brackets out of place: [2001:db8::/32]:443")
            }
            Self::IcmpPorts => f.write_str("ICMP has no ports"),
        }
    }
}

impl std::error::Error for ParseRuleError {}

impl Rule {
    /// A rule that allows what `text` describes: `[tcp:|udp:|icmp:]TARGET[:PORT[-PORT]]`, where the target
    /// is `*`, an address, a prefix in CIDR notation, a name such as `example.com`, or `.example.com` or
    /// `*.example.com`, which both mean the name and everything under it. IPv6 before a port stands in
    /// brackets. Without a protocol a rule holds for all three, or with ports for TCP and UDP.
    ///
    /// ```
    /// use framegate::Rule;
    /// Rule::allow("tcp:.example.com:443")?;
    /// Rule::allow("udp:[2001:db8::/32]:5000-5999")?;
    /// Rule::allow("icmp:*")?;
    /// assert_eq!(
    ///     Rule::allow("10.0.0.0/33").unwrap_err().to_string(),
    ///     r#""10.0.0.0/33" is no IP address and no CIDR prefix"#
    /// );
    /// # Ok::<(), framegate::ParseRuleError>(())
    /// ```
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn allow(text: &str) -> Result<Self, ParseRuleError> {
        parse(Action::Allow, text)
    }

    /// As [`allow`](Self::allow), for a rule that denies.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn deny(text: &str) -> Result<Self, ParseRuleError> {
        parse(Action::Deny, text)
    }
}

/// `allow RULE` or `deny RULE`: what [`Display`](fmt::Display) writes.
impl FromStr for Rule {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, ParseRuleError> {
        match text.trim_start().split_once(char::is_whitespace) {
            Some(("allow", rule)) => Self::allow(rule),
            Some(("deny", rule)) => Self::deny(rule),
            _ => Err(ParseRuleError::Action(text.to_owned())),
        }
    }
}

fn parse(action: Action, text: &str) -> Result<Rule, ParseRuleError> {
    let text = text.trim();
    let (protocol, rest) = match text.split_once(':') {
        Some((word, rest)) if word.eq_ignore_ascii_case("tcp") => (Some(Protocol::Tcp), rest),
        Some((word, rest)) if word.eq_ignore_ascii_case("udp") => (Some(Protocol::Udp), rest),
        Some((word, rest)) if word.eq_ignore_ascii_case("icmp") => (Some(Protocol::Icmp), rest),
        _ => (None, text),
    };
    let (to, ports) = split(rest)?;
    let ports = ports.map(parse_ports).transpose()?;
    if protocol == Some(Protocol::Icmp) && ports.is_some() {
        return Err(ParseRuleError::IcmpPorts);
    }
    Ok(Rule { action, to, protocol, ports })
}

/// The target, and the text of the ports.
fn split(text: &str) -> Result<(Target, Option<&str>), ParseRuleError> {
    if let Some(inner) = text.strip_prefix('[') {
        let brackets = || ParseRuleError::Brackets(text.to_owned());
        let (target, rest) = inner.split_once(']').ok_or_else(brackets)?;
        let ports = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').ok_or_else(brackets)?),
        };
        return match net(target) {
            Some(net @ IpNet::V6(_)) => Ok((Target::Net(net), ports)),
            _ => Err(ParseRuleError::Address(target.to_owned())),
        };
    }
    // More than one colon: IPv6 without brackets, and so without ports.
    let (target, ports) = match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => (text, None),
        Some((target, ports)) => (target, Some(ports)),
        None => (text, None),
    };
    Ok((target.parse()?, ports))
}

/// `*`, an address or a prefix, a name, `.name` or `*.name`.
impl FromStr for Target {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, ParseRuleError> {
        match text {
            "" => return Err(ParseRuleError::Empty),
            "*" => return Ok(Self::Any),
            _ => {}
        }
        if let Some(net) = net(text) {
            return Ok(Self::Net(net));
        }
        if text.contains(['/', ':']) {
            return Err(ParseRuleError::Address(text.to_owned()));
        }
        match text.strip_prefix("*.").or_else(|| text.strip_prefix('.')) {
            Some(suffix) => Ok(Self::Suffix(suffix.parse()?)),
            None => Ok(Self::Name(text.parse()?)),
        }
    }
}

fn net(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().ok()?,
    };
    Some(canonical(net))
}

/// Without host bits; a prefix of IPv4-mapped addresses is the prefix of IPv4 that it stands for.
pub(super) fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let (Some(address), Some(prefix)) =
            (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
        && let Ok(v4) = ipnet::Ipv4Net::new(address, prefix)
    {
        return IpNet::V4(v4.trunc());
    }
    net.trunc()
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, ParseRuleError> {
    let error = || ParseRuleError::Ports(text.to_owned());
    // `u16::from_str` takes a sign.
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|port: &u16| digits && *port > 0).ok_or_else(error)
    };
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (port(low)?, port(high)?),
        None => (port(text)?, port(text)?),
    };
    if low > high { Err(error()) } else { Ok(low..=high) }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.action)?;
        if let Some(protocol) = self.protocol {
            write!(f, "{protocol}:")?;
        }
        let is_v6 = matches!(self.to, Target::Net(IpNet::V6(_)));
        match &self.ports {
            None => write!(f, "{}", self.to),
            Some(ports) if is_v6 => write!(f, "[{}]{}", self.to, Ports(ports)),
            Some(ports) => write!(f, "{}{}", self.to, Ports(ports)),
        }
    }
}

struct Ports<'a>(&'a RangeInclusive<u16>);

impl fmt::Display for Ports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (low, high) if low == high => write!(f, ":{low}"),
            (low, high) => write!(f, ":{low}-{high}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Suffix(name) => write!(f, ".{name}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

#[cfg(test)]
mod tests;
