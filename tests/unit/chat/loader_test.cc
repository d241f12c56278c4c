#include "chat/loader.h"

#include <gmock/gmock.h>
#include <poll.h>

#include <cstdlib>

#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

// The loader's events up to its last word.
std::vector<LoaderEvent> events_of(Loader& loader) {
  std::vector<LoaderEvent> all;
  while (all.empty() || !is_last(all.back())) {
    pollfd ready{loader.events().fd(), POLLIN, 0};
    ::poll(&ready, 1, -1);
    for (auto& event : loader.events().take()) all.push_back(std::move(event));
  }
  return all;
}

class LoaderTest : public testing::Test {
 protected:
  LoaderTest() {
    folder_.write("tiny/model.safetensors", "");
    ::setenv("HF_HUB_CACHE", (folder_ / "cache").c_str(), 1);
  }
  ~LoaderTest() override { ::unsetenv("HF_HUB_CACHE"); }

  TemporaryFolder folder_;
  // Opens for ever, until its progress is no longer wanted.
  const ModelOpener endless_ = [](const ModelFiles&, const OpenOptions&,
                                  const LoadProgress& progress) -> Result<std::unique_ptr<Decoder>> {
    while (progress(1, 2)) std::this_thread::yield();
    return fail(ErrorKind::invalid, "stopped");
  };
};

TEST_F(LoaderTest, AStoppedLoadSaysItsLastWordAndCanBeStartedAgain) {
  Loader loader(endless_, {});
  for (int i = 0; i < 2; ++i) {
    loader.start({.path = folder_ / "tiny"});
    loader.stop();
    const auto events = events_of(loader);
    const auto& opened = std::get<Result<std::unique_ptr<Decoder>>>(events.back());
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().message, "stopped");
  }
}

TEST_F(LoaderTest, ItsEndStopsIt) {
  Loader loader(endless_, {});
  loader.start({.path = folder_ / "tiny"});
}

TEST_F(LoaderTest, WhatOnlyTheHubMayHaveIsSaidWithItsName) {
  Loader loader(endless_, {});
  loader.start({.path = "org/tiny"});
  const auto events = events_of(loader);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(std::get<OnlyOnHub>(events[0]).name, "org/tiny");
  EXPECT_THAT(std::get<OnlyOnHub>(events[0]).message, testing::HasSubstr("not in the Hugging Face cache"));
  loader.start({.path = folder_ / "nowhere"});
  EXPECT_TRUE(std::holds_alternative<Result<ModelFiles>>(events_of(loader).back()));
}

}  // namespace
}  // namespace bitctl
