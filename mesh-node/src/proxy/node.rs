//! Which addresses are those of this node.
//!
//! In:  an address.
//! Out: whether the kernel takes it for one of the node's own.
//! Invariant: what is remembered is bounded, and asked anew after a few seconds.

use crate::sys::netlink::Routing;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

/// Addresses that are remembered.
const MOST: usize = 4096;

/// What the kernel said of addresses.
#[derive(Default)]
pub(crate) struct NodeAddresses(RefCell<HashMap<IpAddr, bool>>);

impl NodeAddresses {
    /// Is it one of the node's own? If the kernel does not answer, it is not.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        let mut known = self.0.borrow_mut();
        if let Some(&is_local) = known.get(&address) {
            return is_local;
        }
        let Ok(is_local) = Routing::here().and_then(|routing| routing.is_local(address)) else { return false };
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(address, is_local);
        is_local
    }

    /// Everything is asked anew.
    pub(crate) fn forget(&self) {
        self.0.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn it_is_asked_once_of_each_and_few_are_remembered() {
        let addresses = NodeAddresses::default();
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert!(addresses.has(local));
        addresses.0.borrow_mut().insert(local, false);
        assert!(!addresses.has(local), "it is remembered");
        addresses.forget();
        assert!(addresses.has(local));
        for number in 0..u32::try_from(MOST).expect("few") + 1 {
            addresses.has(Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + number).into());
        }
        assert!(addresses.0.borrow().len() <= MOST);
    }
}
