#include "base/seqpacket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "temporary_folder.h"

namespace bitctl {
namespace {

size_t open_fds() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

TEST(Seqpacket, OneSendIsOneReceive) {
  auto pair = seqpacket_pair();
  ASSERT_TRUE(pair);
  ASSERT_TRUE(send_message(pair->first.get(), "one"));
  ASSERT_TRUE(send_message(pair->first.get(), std::string(kMaxMessageBytes, 'x')));
  EXPECT_EQ(receive_message(pair->second.get())->bytes, "one");
  EXPECT_EQ(receive_message(pair->second.get())->bytes.size(), kMaxMessageBytes);
  EXPECT_EQ(receive_message(pair->second.get()).error().kind, ErrorKind::timeout);
}

TEST(Seqpacket, DescriptorsTravelAndAreCloseOnExec) {
  auto pair = seqpacket_pair();
  const TemporaryFolder folder;
  Fd file(::open(folder.write("f", "content").c_str(), O_RDONLY));
  ASSERT_TRUE(send_message(pair->first.get(), "fd", {file.get(), file.get()}));
  const auto message = receive_message(pair->second.get());
  ASSERT_TRUE(message);
  ASSERT_EQ(message->fds.size(), 2u);
  char text[7];
  EXPECT_EQ(::pread(message->fds[0].get(), text, 7, 0), 7);
  EXPECT_EQ(::fcntl(message->fds[0].get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(Seqpacket, AGonePeerIsAClosedMessage) {
  auto pair = seqpacket_pair();
  pair->first.reset();
  EXPECT_TRUE(receive_message(pair->second.get())->closed());
  EXPECT_EQ(send_message(pair->second.get(), "x").error().errno_value, EPIPE);
}

TEST(Seqpacket, AFullSocketIsNeverWaitedFor) {
  auto pair = seqpacket_pair();
  Status status;
  for (int i = 0; i < 100000 && status; ++i) status = send_message(pair->first.get(), "progress");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::timeout);
}

// Too many descriptors, too long a message: refused, and nothing of it stays open.
TEST(Seqpacket, WhatIsTooMuchIsRefusedWithoutALeak) {
  auto pair = seqpacket_pair();
  const size_t before = open_fds();
  for (int i = 0; i < 100; ++i) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 20)] = {};
    char byte = 'x';
    iovec part{&byte, 1};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * 20);
    for (size_t k = 0; k < 20; ++k) std::memcpy(CMSG_DATA(c) + k * sizeof(int), "\0\0\0\0", sizeof(int));
    ASSERT_EQ(::sendmsg(pair->first.get(), &header, 0), 1);
    EXPECT_EQ(receive_message(pair->second.get()).error().kind, ErrorKind::invalid);
    const std::string huge(kMaxMessageBytes + 1, 'y');
    ASSERT_EQ(::send(pair->first.get(), huge.data(), huge.size(), 0), static_cast<ssize_t>(huge.size()));
    EXPECT_EQ(receive_message(pair->second.get()).error().kind, ErrorKind::invalid);
  }
  EXPECT_EQ(open_fds(), before);
}

TEST(Seqpacket, ListenerReplacesADeadSocketAndTellsThePeer) {
  const TemporaryFolder folder;
  const std::string path = folder / "socket";
  { const auto dead = seqpacket_listen(path); }
  auto listener = seqpacket_listen(path);
  ASSERT_TRUE(listener) << listener.error().message;
  auto client = seqpacket_connect(path);
  ASSERT_TRUE(client);
  auto accepted = seqpacket_accept(listener->get());
  ASSERT_TRUE(accepted);
  EXPECT_EQ(peer_of(accepted->get())->pid, ::getpid());
  EXPECT_EQ(peer_of(accepted->get())->uid, ::getuid());
  EXPECT_FALSE(seqpacket_listen(std::string(200, 'x'))) << "longer than a socket path may be";
}

}  // namespace
}  // namespace bitctl
