use super::*;
use crate::probe::testing;
use crate::twin::warp::WarpCli;

fn facts(settings: Value) -> Value {
    let warp = Warp {
        routes: vec!["10.42.0.0/16".parse().unwrap(), "192.168.2.0/24".parse().unwrap()],
        device: "CloudflareWARP".into(),
        domain: "cluster.local".into(),
        nameserver: Ipv4Addr::new(10, 43, 0, 10),
    };
    let mut facts = Facts::default();
    warp.settings_facts(&mut facts, Settings::read(&settings));
    facts.to_json()
}

#[test]
fn both_split_tunnel_modes() {
    let entry = |value: &str| json!({"value": value, "description": ""});
    let exclude = facts(json!({"settings": {"operation_mode": "warp", "split_tunnel_mode": "exclude",
        "split_tunnel_ips": [entry("192.168.0.0/16"), entry("fe80::/10"), "10.42.7.0/24"], "fallback_domains": []}}));
    assert_eq!(exclude["left_out"], json!(["10.42.0.0/16", "192.168.2.0/24"]));
    let include = facts(json!({"mode": "doh", "split_tunnel_mode": "include", "split_tunnel_ips": [entry("10.0.0.0/8")]}));
    assert_eq!((&include["left_out"], &include["tunnels"]), (&json!(["192.168.2.0/24"]), &json!(false)));
    assert!(include["domain_ok"]["unknown"].is_string());
}

#[test]
fn the_longest_suffix_of_the_fallback_list_decides() {
    let with = |list: Value| facts(json!({"settings": {"operation_mode": "warp+doh", "fallback_domains": list}}));
    let seen = with(json!(["local", {"suffix": "cluster.local", "dns_server": ["10.43.0.10"]}]));
    assert_eq!((&seen["domain_suffix"], &seen["domain_ok"]), (&json!("cluster.local"), &json!(true)));
    let seen = with(json!(["local", "calocal"]));
    assert_eq!((&seen["domain_suffix"], &seen["domain_ok"]), (&json!("local"), &json!(false)));
    assert_eq!(with(json!([]))["domain_suffix"], json!(""));
}

#[test]
fn errors_come_with_exit_status_0() {
    assert!(read(r#"{"code": "registration_missing", "error": "Registration Missing"}"#).unwrap_err().contains("Registration Missing"));
    assert!(read("Unable to connect to the CloudflareWARP daemon").unwrap_err().contains("no JSON"));
    assert!(read("[1]").is_err() && read("").is_err());
    assert_eq!(reason(&json!({"RegistrationMissing": "DaemonStartup"})), "RegistrationMissing: DaemonStartup");
    assert_eq!(reason(&json!({"ManualDisconnect": null})), "ManualDisconnect");
    assert_eq!(facts(json!({"settings": 7}))["mode"]["unknown"], "warp-cli's settings have an unexpected shape");
}

#[test]
fn the_organisation_is_found_in_every_shape() {
    for document in
        [json!({"registration": {"account": {"organization": "goldfishinc"}}}), json!({"account": {"organization": "goldfishinc"}})]
    {
        let mut facts = Facts::default();
        registration_facts(&mut facts, &Ok(document));
        assert_eq!(facts.get("organization"), Some(&json!("goldfishinc")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_the_twins_warp_cli_is_found_through_path_and_read_as_the_real_one() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let stand_in = WarpCli::new().unwrap();
    let mut vantage = testing::vantage("");
    vantage.files.path = Some(stand_in.path());
    let ask = async |args: &[&str]| told(&vantage, args, Instant::now() + PATIENCE).await.and_then(|b| read(&String::from_utf8_lossy(&b)));
    assert!(ask(&["status"]).await.unwrap_err().contains("no JSON"), "it has no answer yet");
    stand_in.answer("status", &json!({"status": "Connected"})).unwrap();
    assert_eq!(ask(&["status"]).await.unwrap()["status"], "Connected");
    stand_in.answer("registration show", &json!({"code": "registration_missing", "error": "Registration Missing"})).unwrap();
    assert!(ask(&["registration", "show"]).await.unwrap_err().contains("Registration Missing"));
    stand_in.answer("status", &json!({"status": "Disconnected", "reason": {"ManualDisconnect": null}})).unwrap();
    assert_eq!(ask(&["status"]).await.unwrap()["status"], "Disconnected");
    vantage.files.path = None;
    vantage.transport = Transport::Twin;
    assert_eq!(told(&vantage, &["status"], Instant::now() + PATIENCE).await.unwrap_err(), "no warp-cli is known at this vantage");
}
