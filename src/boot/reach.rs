//! `Reach`: a server of this host that a machine reaches under an address of its own network.

use super::MachineError;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// The network of a machine: QEMU's, with the addresses that QEMU gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeNetwork {
    /// Its first address.
    base: Ipv4Addr,
    /// Bits of the base that all its addresses share.
    prefix: u32,
}

impl NodeNetwork {
    /// The network of every machine that has one: the machine gets 10.0.2.15 by DHCP.
    pub const PRIVATE: NodeNetwork = NodeNetwork {
        base: Ipv4Addr::new(10, 0, 2, 0),
        prefix: 24,
    };
    /// The network of a machine with a cloud's metadata service, whose address must be in it: the machine gets 169.254.2.15.
    pub const LINK_LOCAL: NodeNetwork = NodeNetwork {
        base: Ipv4Addr::new(169, 254, 0, 0),
        prefix: 16,
    };
    /// Numbers of QEMU's own addresses, in a network of 16 bits: its host, its name server, and those that its DHCP server gives away.
    const OWN: [std::ops::RangeInclusive<u32>; 2] = [0x202..=0x203, 0x20f..=0x21f];

    /// The value of QEMU's `net=`.
    pub(super) fn argument(self) -> String {
        format!("{}/{}", self.base, self.prefix)
    }

    /// Why a server cannot have `address` in this network, if it cannot.
    fn problem(self, address: Ipv4Addr) -> Option<String> {
        let mask = u32::MAX << (32 - self.prefix);
        let (base, number) = (u32::from(self.base), u32::from(address));
        if number & mask != base {
            return Some(format!(
                "{address} is outside of the machine's network {}",
                self.argument()
            ));
        }
        let place = number & !mask;
        let inside = |own: &u32| own & !mask == place;
        let own = Self::OWN.into_iter().flatten().any(|own| inside(&own)) || place == 0 || place == !mask;
        own.then(|| format!("{address} is an address that QEMU needs itself"))
    }
}

/// A server of this host, and the address under which the machine reaches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    /// The address in the machine's network.
    pub node: SocketAddrV4,
    /// The server, on the loopback of this host.
    pub server: SocketAddr,
}

/// The address of every cloud's metadata service.
const METADATA: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);

/// Most servers of one machine.
const MOST: usize = 64;

impl Reach {
    /// The metadata service of a cloud at `server`.
    pub fn metadata(server: SocketAddr) -> Self {
        Self { node: METADATA, server }
    }

    /// Parses `ADDRESS:PORT=LOOPBACK:PORT`; the first address is one of `network`.
    ///
    /// # Errors
    ///
    /// The text has another form, the address is none that a server can have in `network`, or the server is not on the loopback.
    pub fn parse(text: &str, network: NodeNetwork) -> Result<Self, MachineError> {
        let bad = |problem: String| MachineError::Reach {
            value: text.to_owned(),
            problem,
        };
        let (node, server) = text
            .split_once('=')
            .ok_or_else(|| bad("it is not ADDRESS:PORT=127.0.0.1:PORT".to_owned()))?;
        let node: SocketAddrV4 = node
            .parse()
            .map_err(|_| bad(format!("{node:?} is not an IPv4 address and a port")))?;
        let server: SocketAddr = server
            .parse()
            .map_err(|_| bad(format!("{server:?} is not an address and a port")))?;
        if !server.ip().is_loopback() {
            return Err(bad(format!(
                "{} is not an address of the loopback, and a machine reaches nothing else",
                server.ip()
            )));
        }
        if node.port() == 0 || server.port() == 0 {
            return Err(bad("no server has the port 0".to_owned()));
        }
        match network.problem(*node.ip()) {
            Some(problem) => Err(bad(problem)),
            None => Ok(Self { node, server }),
        }
    }

    /// Parses the values of `--reach`: each address of the machine's network leads to one server.
    ///
    /// # Errors
    ///
    /// Those of [`Self::parse`]; an address is named twice, or there are too many.
    pub fn parse_all(texts: &[String], network: NodeNetwork) -> Result<Vec<Self>, MachineError> {
        let mut all: Vec<Self> = Vec::new();
        for text in texts {
            let bad = |problem| MachineError::Reach {
                value: text.clone(),
                problem,
            };
            let reach = Self::parse(text, network)?;
            if reach.node == METADATA {
                return Err(bad(format!("{METADATA} is the metadata service's (--metadata)")));
            }
            if all.iter().any(|other| other.node == reach.node) {
                return Err(bad(format!("{} leads to another server already", reach.node)));
            }
            if all.len() == MOST {
                return Err(bad(format!("a machine reaches at most {MOST} servers")));
            }
            all.push(reach);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_on_the_loopback_and_its_address_in_the_machines_network() {
        let parse = |text: &str| Reach::parse(text, NodeNetwork::PRIVATE);
        let reach = parse("10.0.2.100:443=127.0.0.1:8443").expect("valid");
        assert_eq!(
            (reach.node.to_string(), reach.server.to_string()),
            ("10.0.2.100:443".to_owned(), "127.0.0.1:8443".to_owned())
        );
        assert!(parse("10.0.2.4:80=[::1]:80").is_ok());
        for (text, problem) in [
            ("10.0.2.100:443", "it is not ADDRESS:PORT=127.0.0.1:PORT"),
            ("host:443=127.0.0.1:1", "\"host:443\" is not an IPv4 address and a port"),
            ("10.0.2.100:443=8443", "\"8443\" is not an address and a port"),
            (
                "10.0.2.100:443=192.0.2.1:443",
                "192.0.2.1 is not an address of the loopback, and a machine reaches nothing else",
            ),
            ("10.0.2.100:0=127.0.0.1:1", "no server has the port 0"),
            (
                "10.0.3.1:443=127.0.0.1:1",
                "10.0.3.1 is outside of the machine's network 10.0.2.0/24",
            ),
            (
                "10.0.2.2:443=127.0.0.1:1",
                "10.0.2.2 is an address that QEMU needs itself",
            ),
            (
                "10.0.2.15:443=127.0.0.1:1",
                "10.0.2.15 is an address that QEMU needs itself",
            ),
            (
                "10.0.2.255:443=127.0.0.1:1",
                "10.0.2.255 is an address that QEMU needs itself",
            ),
        ] {
            let want = MachineError::Reach {
                value: text.to_owned(),
                problem: problem.to_owned(),
            };
            assert_eq!(parse(text), Err(want));
        }
    }

    #[test]
    fn an_address_leads_to_one_server() {
        let all = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Reach::parse_all(&texts, NodeNetwork::PRIVATE).map(|all| all.len())
        };
        let (one, two) = ("10.0.2.100:443=127.0.0.1:1", "10.0.2.100:80=127.0.0.1:1");
        assert_eq!(all(&[one, two]), Ok(2));
        let error = all(&[one, two, one]).expect_err("twice").to_string();
        assert!(
            error.ends_with("10.0.2.100:443 leads to another server already"),
            "{error}"
        );
    }
}
