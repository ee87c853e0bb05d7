//! Packets with and without descriptors. A-IP-01 (transport part)
use std::fs::File;
use std::io::Read;

use super::*;

async fn pair() -> (tempfile::TempDir, Stream, Stream) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    let (client, server) = tokio::join!(Stream::connect(&path), listener.accept());
    (folder, client.unwrap(), server.unwrap())
}

#[tokio::test]
async fn packets_keep_their_bounds_and_may_carry_a_descriptor() {
    let (folder, client, server) = pair().await;
    let file = folder.path().join("f");
    std::fs::write(&file, "content").unwrap();
    client.send(b"one", None).await.unwrap();
    client.send(b"two!", Some(File::open(&file).unwrap().as_fd())).await.unwrap();
    let mut buffer = [0; 64];
    let one = server.receive(&mut buffer).await.unwrap();
    assert_eq!((one.length, one.descriptor.is_some()), (3, false));
    let two = server.receive(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..two.length], b"two!");
    let descriptor = two.descriptor.unwrap();
    let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let mut text = String::new();
    File::from(descriptor).read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    assert_eq!(server.peer().unwrap().process, std::process::id().cast_signed());
}

#[tokio::test]
async fn a_packet_longer_than_the_buffer_is_an_error_and_the_next_is_not() {
    let (_folder, client, server) = pair().await;
    client.send(&[7; 1025], Some(File::open("/dev/null").unwrap().as_fd())).await.unwrap();
    client.send(&[8; 1024], None).await.unwrap();
    let mut buffer = [0; 1024];
    assert!(matches!(server.receive(&mut buffer).await, Err(ReceiveError::Truncated(1024))));
    assert_eq!(server.receive(&mut buffer).await.unwrap().length, 1024);
}

#[tokio::test]
async fn more_than_one_descriptor_is_an_error_and_all_are_closed() {
    let (_folder, client, server) = pair().await;
    for count in [2, DESCRIPTORS_LOOKED_FOR + 1] {
        // A pipe's reader tells whether any copy of its writing end is left.
        let (mut reader, writer) = io::pipe().unwrap();
        let descriptors = vec![writer.as_fd(); count];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        rustix::net::sendmsg(&client.socket, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())
            .unwrap();
        let received = server.receive(&mut [0; 8]).await;
        assert!(matches!(received, Err(ReceiveError::TooManyDescriptors)), "{received:?}");
        drop(writer);
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}

#[tokio::test]
async fn an_end_is_seen_and_sending_into_it_fails() {
    let (_folder, client, server) = pair().await;
    drop(client);
    assert!(matches!(server.receive(&mut [0; 8]).await, Err(ReceiveError::Closed)));
    assert!(server.send(b"x", None).await.is_err());
}

#[tokio::test]
async fn receiving_waits_and_is_cancel_safe() {
    let (_folder, client, server) = pair().await;
    let mut buffer = [0; 8];
    let wait = std::time::Duration::from_millis(10);
    assert!(tokio::time::timeout(wait, server.receive(&mut buffer)).await.is_err());
    client.send(b"late", None).await.unwrap();
    assert_eq!(server.receive(&mut buffer).await.unwrap().length, 4);
}
