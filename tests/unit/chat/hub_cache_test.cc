#include "chat/hub_cache.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>

#include "chat/model_files.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

// A cache as huggingface_hub lays it out: blobs by hash, and a snapshot of links to them.
class HubCacheTest : public testing::Test {
 protected:
  HubCacheTest() { ::setenv("HF_HUB_CACHE", folder_.path().c_str(), 1); }
  ~HubCacheTest() override { ::unsetenv("HF_HUB_CACHE"); }

  std::string snapshot_path(const std::string& file) {
    return folder_ / (kModel + "/snapshots/c0ffee/" + file);
  }
  void download(const std::string& file) {
    folder_.write(kModel + "/blobs/" + file, "");
    std::filesystem::create_directories(snapshot_path(""));
    std::filesystem::create_symlink("../../blobs/" + file, snapshot_path(file));
    folder_.write(kModel + "/refs/main", "c0ffee");
  }
  static std::string find(const std::string& name) {
    const auto found = find_model_files({.path = name});
    return found ? found->folder + ": " + found->name : found.error().message;
  }

  const std::string kModel = "models--org--tiny";
  TemporaryFolder folder_;
};

TEST_F(HubCacheTest, AWholeSnapshotIsFoundByItsName) {
  for (const char* file : {"config.json", "tokenizer.json", "model.safetensors"}) download(file);
  EXPECT_EQ(find("org/tiny"), folder_ / (kModel + "/snapshots/c0ffee: org/tiny"));
}

TEST_F(HubCacheTest, OneThatIsNotWholeSaysWhatIsMissing) {
  EXPECT_THAT(find("org/tiny"), HasSubstr("not in the Hugging Face cache " + folder_.path()));
  download("model.safetensors");
  EXPECT_THAT(find("org/tiny"), HasSubstr("config.json: no such file"));
  download("config.json");
  EXPECT_THAT(find("org/tiny"), HasSubstr("tokenizer.json: no such file"));
  download("tokenizer.json");
  std::filesystem::remove(folder_ / (kModel + "/blobs/model.safetensors"));
  EXPECT_THAT(find("org/tiny"), HasSubstr("not whole")) << "a link that leads nowhere";
  std::filesystem::remove(folder_ / (kModel + "/refs/main"));
  EXPECT_THAT(find("org/tiny"), HasSubstr("refs/main"));
}

TEST_F(HubCacheTest, EveryPartThatTheIndexNamesIsThere) {
  for (const char* file : {"config.json", "tokenizer.json", "model-1.safetensors"}) download(file);
  folder_.write(kModel + "/snapshots/c0ffee/model.safetensors.index.json",
                R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})");
  EXPECT_THAT(find("org/tiny"), HasSubstr("model-2.safetensors: no such file"));
  download("model-2.safetensors");
  EXPECT_THAT(find("org/tiny"), HasSubstr("c0ffee: org/tiny"));
}

TEST_F(HubCacheTest, ARefThatLeadsElsewhereIsRefused) {
  download("model.safetensors");
  folder_.write(kModel + "/refs/main", "../../../elsewhere");
  EXPECT_THAT(find("org/tiny"), HasSubstr("refs/main: names no commit"));
}

TEST(HubName, IsWhatTheHubAllows) {
  for (const char* name : {"org/tiny", "gpt2", "Qwen/Qwen2.5-0.5B"})
    EXPECT_TRUE(may_be_hub_name(name)) << name;
  for (const char* name : {"", "/", "a/b/c", "../a", "a/..", "a b", ".hidden", "org/", "~/model"})
    EXPECT_FALSE(may_be_hub_name(name)) << name;
}

TEST_F(HubCacheTest, OnlyWhatCanBeMeantIsAskedOfTheHub) {
  const auto name = [](const std::string& path) { return name_on_hub({.path = path}).value_or("none"); };
  EXPECT_EQ(name("org/tiny"), "org/tiny");
  for (const char* here : {"tiny", "", "org/tiny/x", "/tmp/x", "./tiny", "../tiny", "org/ti ny"})
    EXPECT_EQ(name(here), "none") << here;
  EXPECT_EQ(name_on_hub({.path = "org/tiny", .step = 3}), std::nullopt);
  EXPECT_EQ(name_on_hub({.path = "org/tiny", .newest_step = true}), std::nullopt);

  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder_.path());
  std::filesystem::create_directories("runs/one");
  EXPECT_EQ(name("runs/oen"), "none") << "a path that is mistyped stays here";
  EXPECT_EQ(name("runs/one"), "none") << "it is no model, and it is here";
  std::filesystem::create_directories("models--runs--oen");
  std::filesystem::create_directories("models--gpt2");
  EXPECT_EQ(name("runs/oen"), "runs/oen") << "its download has begun";
  EXPECT_EQ(name("gpt2"), "gpt2");
  std::filesystem::current_path(before);
}

TEST(HubCache, IsWhereTheEnvironmentSays) {
  for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) ::unsetenv(name);
  const char* home = std::getenv("HOME");
  const std::string before = home ? home : "";
  ::setenv("HOME", "/home/me", 1);
  EXPECT_EQ(hub_cache_folder(), "/home/me/.cache/huggingface/hub");
  ::setenv("XDG_CACHE_HOME", "/cache", 1);
  EXPECT_EQ(hub_cache_folder(), "/cache/huggingface/hub");
  ::setenv("HF_HOME", "/hf", 1);
  EXPECT_EQ(hub_cache_folder(), "/hf/hub");
  ::setenv("HF_HUB_CACHE", "/hub", 1);
  EXPECT_EQ(hub_cache_folder(), "/hub");
  for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) ::unsetenv(name);
  ::setenv("HOME", before.c_str(), 1);
}

}  // namespace
}  // namespace bitctl
