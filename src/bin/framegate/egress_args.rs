//! The options that say where the guest may go.

use clap::error::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use framegate::{Action, Policy, Rule};

/// The heading of these options in the help.
pub(crate) const HEADING: &str = "Where the guest may go";

/// The policy that the command line describes. `--allow` and `--deny` keep their order among each other.
#[derive(Debug, Default)]
pub(crate) struct Egress(pub(crate) Policy);

#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
struct Options {
    /// Let the guest go there: [tcp:|udp:|icmp:]TARGET[:PORT[-PORT]], where TARGET is *, an address, a
    /// CIDR prefix, a name, or .name for it and all below it. The first --allow or --deny that matches
    /// decides.
    #[arg(long, value_name = "RULE", value_parser = Rule::allow)]
    allow: Vec<Rule>,

    /// Keep the guest from there, as --allow has it.
    #[arg(long, value_name = "RULE", value_parser = Rule::deny)]
    deny: Vec<Rule>,

    /// What happens to a destination that no rule matches.
    #[arg(long, value_enum, default_value = "allow")]
    egress: ActionName,

    /// Let the rules decide on the host's own addresses, which are denied otherwise.
    #[arg(long)]
    host_addresses: bool,

    /// Let the rules decide on cloud metadata services, which are denied otherwise. The guest can then
    /// take the host's credentials.
    #[arg(long)]
    metadata: bool,

    /// With `--egress deny`, resolve names that no rule mentions.
    #[arg(long)]
    resolve_all: bool,
}

/// The names of [`Action`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ActionName {
    /// It can be reached.
    Allow,
    /// It is prohibited.
    Deny,
}

impl From<ActionName> for Action {
    fn from(name: ActionName) -> Self {
        match name {
            ActionName::Allow => Self::Allow,
            ActionName::Deny => Self::Deny,
        }
    }
}

impl FromArgMatches for Egress {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self> {
        let options = Options::from_arg_matches(matches)?;
        let places = |option| matches.indices_of(option).into_iter().flatten();
        let mut rules: Vec<(usize, Rule)> =
            places("allow").zip(options.allow).chain(places("deny").zip(options.deny)).collect();
        rules.sort_by_key(|(place, _)| *place);
        let policy = Policy::new(options.egress.into())
            .host_addresses(options.host_addresses)
            .metadata(options.metadata)
            .resolve_all(options.resolve_all);
        Ok(Self(rules.into_iter().fold(policy, |policy, (_, rule)| policy.rule(rule))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<()> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Egress {
    fn augment_args(command: Command) -> Command {
        Options::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Options::augment_args_for_update(command)
    }
}
