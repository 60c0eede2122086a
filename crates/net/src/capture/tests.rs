use super::Rules;

/// The whole text, because it is what `outrigger capture print` shows to people who want to know.
#[test]
fn the_rules_read_as_they_should() {
    let rules = Rules {
        skip_outbound_ports: vec![5432, 443, 5432],
        skip_inbound_ports: vec![9100],
        skip_outbound_cidrs: vec!["10.1.2.3/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        ..Rules::default()
    };
    let expected = r#"table inet outrigger
delete table inet outrigger
table inet outrigger {
	chain output {
		type nat hook output priority -100; policy accept;
		tcp flags & (fin | syn | rst | ack) != syn return
		meta skuid 1337 return
		oifname "lo" return
		tcp dport { 443, 5432 } return
		ip daddr 10.0.0.0/8 return
		ip6 daddr fd00::/8 return
		meta l4proto tcp redirect to :15001
	}
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		tcp flags & (fin | syn | rst | ack) != syn return
		iifname "lo" return
		tcp dport { 9100, 15000, 15001, 15006, 15020, 15021 } return
		meta l4proto tcp redirect to :15006
	}
}
"#;
    assert_eq!(rules.ruleset(), expected);
}
