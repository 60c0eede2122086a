#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use super::*;

fn claim(stream: UnixStream) -> Claim {
    Claim { stream, pid: 1, listeners: Vec::new(), own: Vec::new() }
}

#[tokio::test]
async fn a_running_process_that_has_said_no_and_gone_on_is_not_taken_for_one_that_ended() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    say(&theirs, &Word::No("does not give way".into())).await.unwrap();
    drop(theirs);
    let refused = claim(ours).ready().await;
    assert!(matches!(refused, Err(UpgradeError::Refused(why)) if why == "does not give way"));
}

#[tokio::test]
async fn one_that_ended_without_a_word_needs_not_agree() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    claim(ours).ready().await.unwrap();
}

#[tokio::test]
async fn an_offer_of_more_sockets_than_there_can_be_is_an_error() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 80));
    let many = |name: &str| Offered {
        r#use: Use::Listener,
        name: name.into(),
        asked: address,
        local: address,
        count: usize::MAX,
    };
    let offer = Word::Offer { version: VERSION, pid: 1, sockets: vec![many("a"), many("b")] };
    say(&theirs, &offer).await.unwrap();
    drop(theirs);
    assert!(matches!(Claim::over(ours).await, Err(UpgradeError::Refused(_))));
}

#[tokio::test]
async fn the_place_of_the_next_process_is_left_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("upgrade.sock");
    let door = Door::make(&path).unwrap();
    door.put().unwrap();
    door.left.set(true);
    drop(door);
    assert!(path.exists(), "the next process may be about to put its own there");
    let door = Door::make(&path).unwrap();
    door.put().unwrap();
    drop(door);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
