//! What holds for every frame that the guest gets.

use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv6Packet, IpAddress,
    IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket,
};

use super::{GATEWAY_MAC, GUEST_MAC};

/// The size, the addresses, the lengths and every checksum of a frame to the guest.
#[track_caller]
pub(crate) fn frame(bytes: &[u8], mtu: usize) {
    assert!(bytes.len() <= mtu + 14, "{} bytes would wedge a guest of MTU {mtu}", bytes.len());
    let ethernet = EthernetFrame::new_checked(bytes).unwrap();
    assert_eq!(ethernet.src_addr().0, GATEWAY_MAC);
    assert_eq!(ethernet.dst_addr().0, if to_all(bytes) { [0xff; 6] } else { GUEST_MAC });
    match ethernet.ethertype() {
        EthernetProtocol::Arp => {
            ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).unwrap()).unwrap();
        }
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            assert!(ip.verify_checksum(), "the IPv4 header's checksum");
            assert_eq!(usize::from(ip.total_len()), ethernet.payload().len());
            if ip.more_frags() || ip.frag_offset() != 0 {
                return; // whoever puts it together checks the rest
            }
            let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
            match ip.next_header() {
                IpProtocol::Icmp => {
                    let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
                    assert!(icmp.verify_checksum(), "the ICMP checksum");
                }
                other => transport(other, source, destination, ip.payload()),
            }
        }
        EthernetProtocol::Ipv6 => {
            let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
            assert_eq!(ip.total_len(), ethernet.payload().len());
            let (source, destination) = (ip.src_addr(), ip.dst_addr());
            match ip.next_header() {
                IpProtocol::Icmpv6 => {
                    let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
                    assert!(icmp.verify_checksum(&source, &destination), "the ICMPv6 checksum");
                }
                other => transport(other, source.into(), destination.into(), ip.payload()),
            }
        }
        other => panic!("a frame of type {other}"),
    }
}

#[track_caller]
fn transport(protocol: IpProtocol, source: IpAddress, destination: IpAddress, packet: &[u8]) {
    if protocol == IpProtocol::Ipv6Frag {
        return;
    }
    if protocol == IpProtocol::Udp {
        let udp = UdpPacket::new_checked(packet).unwrap();
        assert_ne!(udp.checksum(), 0, "there is a UDP checksum");
        assert!(udp.verify_checksum(&source, &destination), "the UDP checksum");
        assert_eq!(usize::from(udp.len()), packet.len());
        assert!(udp.src_port() != 0 && udp.dst_port() != 0);
        return;
    }
    assert_eq!(protocol, IpProtocol::Tcp, "the gateway sends nothing else");
    let tcp = TcpPacket::new_checked(packet).unwrap();
    assert!(tcp.verify_checksum(&source, &destination), "the TCP checksum");
    assert_ne!(tcp.src_port(), 0);
    assert_ne!(tcp.dst_port(), 0);
}

/// Whether this is an IPv4 broadcast.
fn to_all(bytes: &[u8]) -> bool {
    bytes.get(12..14) == Some(&[8, 0]) && bytes.get(30..34) == Some(&[0xff; 4])
}
