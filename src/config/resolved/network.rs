//! An address or a range of addresses, such as those of proxies.

use std::net::IpAddr;
use std::str::FromStr;

/// Addresses that begin with the same bits. An IPv4 address written as an IPv6 address counts as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Number of leading bits that are compared.
    prefix: u8,
}

/// Number of bits before the IPv4 address in an IPv4-mapped address.
const MAPPED: u8 = 96;

impl Network {
    /// Returns whether the range contains an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (u32::from(ours).into(), u32::from(theirs).into(), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (u128::from(ours), u128::from(theirs), 128),
            _ => return false,
        };
        self.prefix == 0 || (ours ^ theirs) >> (width - u32::from(self.prefix)) == 0
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let written = address.parse::<IpAddr>().map_err(|_| ())?;
        let address = written.to_canonical();
        let width = if written.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), |prefix| prefix.parse::<u8>().map_err(|_| ()))?;
        if prefix > width {
            return Err(());
        }
        let is_mapped = written.is_ipv6() && address.is_ipv4();
        let prefix = if is_mapped { prefix.checked_sub(MAPPED).ok_or(())? } else { prefix };
        Ok(Network { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_its_range_in_whichever_way_both_are_written() {
        for (network, inside, outside) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.1", "::ffff:10.0.0.1", "::1"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("2001:db8::/32", "2001:db8:1::7", "2001:db9::"),
            ("0.0.0.0/0", "192.0.2.1", "2001:db8::1"),
        ] {
            let network = network.parse::<Network>().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network:?} {outside}");
        }
        for text in [
            "",
            "proxy.example",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "::ffff:10.0.0.1/33",
            "10.0.0.1/x",
            "10.0.0.1:80",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
