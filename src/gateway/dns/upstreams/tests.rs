use super::*;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 53))
}

fn at(milliseconds: i64) -> Instant {
    Instant::from_millis(milliseconds)
}

fn order(plan: &Plan) -> Vec<u8> {
    let last = |address: &SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    };
    plan.order.iter().map(|(address, _)| last(address)).collect()
}

fn three() -> Upstreams {
    Upstreams::given(&[address(1), address(2), address(3)])
}

#[test]
fn upstreams_are_asked_in_order() {
    let plan = three().plan(at(0));
    assert_eq!(order(&plan), [1, 2, 3]);
    assert_eq!(plan.probe, None);
    assert!(plan.order.iter().all(|(_, is_dead)| !is_dead));
}

#[test]
fn one_that_is_dead_is_asked_last_and_probed_once_when_its_time_is_over() {
    let mut upstreams = three();
    upstreams.failed(address(1), at(0), at(1000));
    assert_eq!(order(&upstreams.plan(at(1000))), [2, 3, 1]);
    assert_eq!(upstreams.plan(at(5999)).probe, None);
    let plan = upstreams.plan(at(6000));
    assert_eq!((order(&plan), plan.probe), (vec![2, 3], Some(address(1))));
    let plan = upstreams.plan(at(6001));
    assert_eq!((order(&plan), plan.probe), (vec![2, 3, 1], None), "one probe at a time");
    upstreams.answered(address(1), at(6100));
    assert_eq!(order(&upstreams.plan(at(6101))), [1, 2, 3], "it lives");
}

#[test]
fn failures_that_were_under_way_count_once() {
    let mut upstreams = three();
    for sent in 0..100 {
        upstreams.failed(address(1), at(sent), at(1000 + sent));
    }
    assert_eq!(upstreams.plan(at(6000)).probe, Some(address(1)), "5 s, not 60");
    upstreams.failed(address(1), at(6000), at(7000));
    assert_eq!(upstreams.plan(at(16_999)).probe, None);
    assert_eq!(upstreams.plan(at(17_000)).probe, Some(address(1)), "10 s after a failed probe");
}

#[test]
fn an_answer_to_another_query_counts_for_it() {
    let mut upstreams = three();
    upstreams.answered(address(1), at(500));
    upstreams.failed(address(1), at(0), at(1000));
    assert_eq!(order(&upstreams.plan(at(1000))), [1, 2, 3]);
    upstreams.failed(address(1), at(501), at(1501));
    assert_eq!(order(&upstreams.plan(at(1501))), [2, 3, 1]);
}

#[test]
fn if_all_are_dead_all_are_asked() {
    let mut upstreams = three();
    for n in 1..=3 {
        upstreams.failed(address(n), at(0), at(1000));
    }
    let plan = upstreams.plan(at(1000));
    assert_eq!(order(&plan), [1, 2, 3]);
    let plan = upstreams.plan(at(9000));
    assert_eq!(order(&plan)[0], 1, "there is always one to begin with");
}

#[test]
fn doubles_and_the_ninth_are_passed_over() {
    let addresses: Vec<SocketAddr> = [1, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(address).to_vec();
    assert_eq!(order(&Upstreams::given(&addresses).plan(at(0))), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn what_is_known_of_an_upstream_outlives_a_change_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
    let mut upstreams = Upstreams::from_file(path.clone());
    assert_eq!(order(&upstreams.plan(at(0))), [1, 2]);
    upstreams.failed(address(1), at(0), at(1000));
    std::fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.3\n").unwrap();
    assert_eq!(order(&upstreams.plan(at(1001))), [3, 1]);
}
