//! Where the guest may go: what an embedder writes, and what can be said of each decision.

mod compiled;
mod event;
mod floor;
mod forms;
mod name;
mod nets;
mod parse;
mod ports;

use std::fmt;
use std::ops::RangeInclusive;

pub use ipnet::IpNet;

use crate::handle::Protocol;

pub(crate) use self::compiled::{Compiled, Pattern};
pub(crate) use self::event::{EventHub, EventSource};
pub(crate) use self::floor::{floor_v4, floor_v6, is_metadata_name};
pub(crate) use self::forms::{Meaning, is_v4_in_v6, meanings};
pub(crate) use self::name::normal;

pub use self::event::{Attempt, PolicyEvent, PolicyEvents};
pub use self::name::HostName;
pub use self::parse::ParseRuleError;

/// The most rules that a policy may have.
pub const MAX_RULES: usize = 4096;

/// What a rule does with a destination that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Lets it pass.
    Allow,
    /// Denies it: the guest is told that this is prohibited (RFC 1812 section 5.2.7.1, ICMP code 13;
    /// RFC 4443 section 3.1, ICMPv6 code 1).
    Deny,
}

/// Where a rule's destinations are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Everywhere.
    Any,
    /// A prefix, IPv4 or IPv6. One of IPv4 also matches the IPv6 forms of its addresses: NAT64, 6to4,
    /// Teredo, ISATAP and IPv4-translated.
    Net(IpNet),
    /// The addresses that DNS has given for this name, while they are valid.
    Name(HostName),
    /// As [`Name`](Self::Name), for this name and every name under it.
    Suffix(HostName),
}

/// One rule. [`Rule::allow`] and [`Rule::deny`] make one from text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// With which destinations.
    pub to: Target,
    /// Of which protocol; `None` for all, or with `ports` for TCP and UDP.
    pub protocol: Option<Protocol>,
    /// To which destination ports; `None` for all.
    pub ports: Option<RangeInclusive<u16>>,
}

/// Where the guest may go: rules in order, of which the first that matches decides, and an action for what
/// none matches. The default allows everything that the floor does not deny.
///
/// # The floor
///
/// Some destinations trust whoever reaches them, so no rule opens them, `allow *` neither. Each has a
/// switch of its own, and behind an open switch the rules decide as everywhere:
///
/// | destination | switch |
/// |---|---|
/// | the host's loopback, by the gateway's address | [`Builder::host_loopback`](crate::Builder::host_loopback) |
/// | the host's own addresses, and the broadcast addresses of its links | [`host_addresses`](Self::host_addresses) |
/// | cloud metadata services, and with them all of 169.254.0.0/16 | [`metadata`](Self::metadata) |
/// | loopback, unspecified, multicast, reserved, IPv6 link-local, the guest's own subnet; IPv4-mapped and -compatible IPv6 addresses | none: no router forwards to them |
///
/// The rules see the host's loopback under the name that the guest has for it, the gateway's address.
///
/// All that holds for every form in which an IPv6 address carries an IPv4 address. An address that may mean
/// several (NAT64 with a local prefix, Teredo) is allowed only if each of them is. A NAT64 prefix that is a
/// network's own (RFC 6052 section 2.2) cannot be told from others: deny it by a rule.
///
/// # Names
///
/// A rule with a name matches addresses that the gateway's own DNS forwarder has given the guest for that
/// name, or for a name whose alias (CNAME) chain goes through it; for their TTL, and half a minute at the
/// least, so that a guest has the time to connect. A connection that was opened in time stays. What the
/// guest learns elsewhere matches no name. A name rule holds for addresses, not for what is spoken: a host
/// that shares the address of an allowed one can be reached as well.
///
/// A `deny` by name keeps names from being resolved, and the addresses that were given for it, for as long as
/// that holds; an address that the guest knows from elsewhere it does not cover. To confine a guest, allow
/// names and deny the rest.
///
/// Who controls a name that is allowed chooses its addresses, the private ones of the host's networks among
/// them: deny those first, with rules such as `deny 10.0.0.0/8`, where names outside are allowed.
///
/// The forwarder resolves what the guest may go to. It refuses a query, so that nothing leaks by names,
/// 1. for the name of a metadata service that is not open;
/// 2. by the first rule that has this name, a suffix of it, or `*` for its target: an `allow`, with or
///    without ports, resolves it; a `deny` without protocol and ports refuses it;
/// 3. otherwise, if the default is to deny: prefixes allow no names, unless
///    [`resolve_all`](Self::resolve_all) says so.
///
/// ```
/// use framegate::{Action, Policy, Rule};
/// let policy = Policy::new(Action::Deny)
///     .rule(Rule::deny("tcp:*:25")?)
///     .rule(Rule::allow("tcp:.example.com:443")?)
///     .rule(Rule::allow("192.0.2.0/24")?);
/// # Ok::<(), framegate::ParseRuleError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a policy does nothing until a gateway has it"]
pub struct Policy {
    pub(crate) rules: Vec<Rule>,
    pub(crate) default: Action,
    pub(crate) host_addresses: bool,
    pub(crate) metadata: bool,
    pub(crate) resolve_all: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self::new(Action::Allow)
    }
}

impl Policy {
    /// No rules yet.
    pub fn new(default: Action) -> Self {
        Self {
            rules: Vec::new(),
            default,
            host_addresses: false,
            metadata: false,
            resolve_all: false,
        }
    }

    /// Adds a rule after those that are there.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// What happens to a destination that no rule matches.
    pub fn default_action(mut self, action: Action) -> Self {
        self.default = action;
        self
    }

    /// Whether the rules decide on the host's own addresses, instead of the floor. Off by default: what
    /// listens there often trusts the host's neighbours.
    pub fn host_addresses(mut self, allowed: bool) -> Self {
        self.host_addresses = allowed;
        self
    }

    /// Whether the rules decide on cloud metadata services, instead of the floor. Off by default: whoever
    /// reaches one is handed the host's credentials.
    ///
    /// | prefix | whose | source |
    /// |---|---|---|
    /// | 169.254.0.0/16 | all that is link-local: AWS (.169.254, .169.253, .169.123; ECS .170.2, EKS .170.23), Azure, Google, Oracle, IBM, Huawei, Tencent (.0.23), DigitalOcean, Hetzner, Akamai, Vultr, OpenStack, Scaleway (.42.42) | RFC 3927; AWS EC2 User Guide, "Access instance metadata"; each provider's metadata pages |
    /// | 168.63.129.16 | Azure's WireServer | Microsoft Learn, "What is IP address 168.63.129.16?" |
    /// | 100.100.100.200 | Alibaba Cloud | Alibaba ECS User Guide, "Instance metadata" |
    /// | 192.0.0.192 | Oracle Cloud Infrastructure Classic | Oracle Compute Classic, "Retrieving instance metadata" |
    /// | 100.96.0.96 | Volcano Engine, BytePlus | Volcengine ECS, "Instance metadata"; `volcengine/cello` |
    /// | 100.80.80.80 | UCloud | UCloud UHost guide, "Metadata server" |
    /// | 100.88.222.5 | Tencent Cloud, older address | Tencent CVM, "Instance metadata" |
    /// | fd00:ec2::/32 | AWS: metadata ::254, DNS ::253, time ::123, EKS Pod Identity ::23 | AWS EC2 User Guide, "IPv6 addresses of local services" |
    /// | fd20:ce::254 | Google Cloud, IPv6-only instances | Compute Engine, "About VM metadata" |
    /// | fd00:c1::a9fe:a9fe | Oracle Cloud Infrastructure | `oracle/oci-python-sdk` |
    /// | fd00:42::42 | Scaleway | cloud-init, "Scaleway" |
    /// | fd00:a9fe:a9fe::1 | Akamai (Linode) | cloud-init, "Akamai" |
    /// | fd00:100::100:200 | Alibaba Cloud | cloud-init, "Alibaba Cloud" |
    ///
    /// `fe80::a9fe:a9fe` (OpenStack, Akamai) is link-local, so no router forwards to it. The forwarder
    /// does not resolve `metadata.google.internal` and `metadata.goog` either.
    pub fn metadata(mut self, allowed: bool) -> Self {
        self.metadata = allowed;
        self
    }

    /// Whether the forwarder resolves names that no rule has an opinion on while the default is to deny,
    /// for guests that are allowed prefixes and find their addresses in DNS. Off by default: a query for
    /// any name is a way out for data.
    pub fn resolve_all(mut self, allowed: bool) -> Self {
        self.resolve_all = allowed;
        self
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a gateway takes this policy; [`Builder::start`](crate::Builder::start) asks this first.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.rules.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules(self.rules.len()));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let Some(ports) = &rule.ports else { continue };
            if rule.protocol == Some(Protocol::Icmp) {
                return Err(PolicyError::IcmpPorts(index));
            }
            if ports.is_empty() || *ports.start() == 0 {
                return Err(PolicyError::Ports(index));
            }
        }
        Ok(())
    }
}

/// A policy that cannot be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// More rules than [`MAX_RULES`]: how many.
    TooManyRules(usize),
    /// The rule at this index is for ICMP and has ports.
    IcmpPorts(usize),
    /// The rule at this index has a range of ports that is empty, or begins with zero.
    Ports(usize),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyRules(n) => write!(f, "{n} rules are more than {MAX_RULES}"),
            Self::IcmpPorts(index) => write!(f, "rule {index}: ICMP has no ports"),
            Self::Ports(index) => write!(f, "rule {index}: no port lies in its range"),
        }
    }
}

impl std::error::Error for PolicyError {}

/// What becomes of live flows when the policy changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LiveFlows {
    /// They stay; the new policy decides on what comes after it.
    #[default]
    Keep,
    /// Those that the new policy denies end: TCP with a reset of both ends, UDP and echo with the next
    /// packet of the guest, which is denied.
    Recheck,
}

/// Which part of the [floor](Policy#the-floor) denied a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Floor {
    /// The gateway's own address, without host loopback.
    HostLoopback,
    /// An address of the host.
    HostAddress,
    /// A cloud's metadata service, or another link-local address.
    Metadata,
    /// An address, or an IPv4 address within it, to which no router forwards.
    NotForwarded,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Because {
    /// The rule at this index.
    Rule(usize),
    /// No rule matched.
    Default,
    /// The floor below the rules.
    Floor(Floor),
}

#[cfg(test)]
mod tests;
