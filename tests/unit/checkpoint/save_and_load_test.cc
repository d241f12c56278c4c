// A save and a load at the same time: who waits for whom, and for how long.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <future>

#include "checkpoint/catalog.h"
#include "checkpoint/load.h"
#include "checkpoint/stage.h"
#include "failing_file_ops.h"
#include "safetensors/tensor_file.h"
#include "step_image.h"
#include "temporary_folder.h"

namespace bitctl {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

// Stops in the middle of the commit: .lock is held, the rename is about to happen.
class HeldCommit : public FileOps {
 public:
  int rename2(const std::string& from, const std::string& to, unsigned flags) override {
    inside.set_value();
    let_go.get_future().wait();
    return FileOps::rename2(from, to, flags);
  }
  std::promise<void> inside;
  std::promise<void> let_go;
};

// A save of step 2 that stands inside its commit; step 1 is there already.
class DuringACommit : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(save_step(folder_.path(), TestStep(1, 'a').image, {}));
    saving_ = std::async(std::launch::async, [this] {
      SaveOptions options;
      options.ops = &held_;
      return save_step(folder_.path(), TestStep(2, 'b').image, options).has_value();
    });
    held_.inside.get_future().wait();
  }
  void TearDown() override {
    if (saving_.valid()) end_commit();
  }
  void end_commit() {
    held_.let_go.set_value();
    EXPECT_TRUE(saving_.get());
  }
  auto open(uint64_t step, Duration limit) {
    TensorFileOptions options;
    options.lock_path = folder_ / ".lock";
    options.lock_limit = limit;
    return TensorFile::open(folder_ / step_folder_name(step) + "/model.safetensors", options);
  }

  TemporaryFolder folder_;
  HeldCommit held_;
  std::future<bool> saving_;
};

TEST_F(DuringACommit, ALoaderWaitsAndThenGetsTheWholeNewCheckpoint) {
  auto loading = std::async(std::launch::async, [this] { return open(2, seconds(60)); });
  EXPECT_EQ(loading.wait_for(milliseconds(100)), std::future_status::timeout)
      << "it did not wait for the commit";
  end_commit();
  const auto file = loading.get();
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ((*file)->bytes((*file)->header().tensors[0])[0], 'b');
}

TEST_F(DuringACommit, ALoaderPastItsLimitNamesTheHolder) {
  const auto file = open(1, milliseconds(50));
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().kind, ErrorKind::locked);
  EXPECT_THAT(file.error().message, HasSubstr(fmt::format("pid {} (started 2", ::getpid())));
}

// A commit waits for a loader that holds the shared lock, but not for what the loader does with its mapping.
TEST(DuringALoad, AMappingThatStandsHoldsNobodyUp) {
  const TemporaryFolder folder;
  ASSERT_TRUE(save_step(folder.path(), TestStep(1, 'a').image, {}));
  TensorFileOptions options;
  options.lock_path = folder / ".lock";
  const auto file = TensorFile::open(folder / "step-000000001/model.safetensors", options);
  ASSERT_TRUE(file);
  const auto saved = save_step(folder.path(), TestStep(1, 'b').image, {});
  ASSERT_TRUE(saved);
  EXPECT_EQ(saved->reader_in_the_way, "") << "an open model held the commit up";
  EXPECT_EQ((*file)->bytes((*file)->header().tensors[0])[0], 'a') << "the old bytes belong to the mapping";
}

// While the data of a step is being written nobody waits at all.
TEST(DuringASave, AnotherStepLoads) {
  const TemporaryFolder folder;
  ASSERT_TRUE(save_step(folder.path(), TestStep(1, 'a').image, {}));
  bool loaded = false;
  SaveOptions save;
  class Loads : public FileOps {
   public:
    explicit Loads(std::function<void()> load) : load_(std::move(load)) {}
    ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) override {
      load_();
      return FileOps::pwrite(fd, data, size, offset);
    }

   private:
    std::function<void()> load_;
  } ops([&] {
    TensorFileOptions options;
    options.lock_path = folder / ".lock";
    options.lock_limit = milliseconds(50);
    loaded = TensorFile::open(folder / "step-000000001/model.safetensors", options).has_value();
  });
  save.ops = &ops;
  ASSERT_TRUE(save_step(folder.path(), TestStep(2, 'b').image, save));
  EXPECT_TRUE(loaded);
}

class LoadStep : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(save_step(folder_.path(), TestStep(7, 'q').image, {}));
    manifest_ = *inspect_step(step_);
    layout_ = *layout_of(manifest_, 1);
    memory_.reset(static_cast<char*>(std::aligned_alloc(4096, layout_.slot_bytes())));
    slot_.state = BITCTL_SLOT_LOADING;
  }
  Status load() { return load_step(step_, manifest_, layout_, memory_.get(), &slot_, milliseconds(50)); }
  void flip(const std::string& file, size_t at) {
    std::string bytes = read_text(step_.path + "/" + file);
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    std::ofstream(step_.path + "/" + file, std::ios::binary | std::ios::trunc) << bytes;
  }

  TemporaryFolder folder_;
  StepFolder step_{7, folder_ / "step-000000007"};
  Manifest manifest_;
  ArenaLayout layout_;
  std::unique_ptr<char, void (*)(void*)> memory_{nullptr, std::free};
  bitctl_slot slot_{};
};

TEST_F(LoadStep, FillsTheSlotAndMovesTheWatermarkToItsEnd) {
  ASSERT_TRUE(load());
  for (size_t i = 0; i < manifest_.files.size(); ++i) {
    const std::string bytes = read_text(step_.path + "/" + manifest_.files[i].name);
    EXPECT_EQ(std::string(memory_.get() + layout_.offset_of(i), bytes.size()), bytes);
    EXPECT_EQ(slot_.used[i], bytes.size());
  }
  EXPECT_EQ(slot_.loaded, layout_.offset_of(1) + manifest_.files[1].bytes);
}

// A file system may take O_DIRECT when the file is opened and refuse the read.
TEST_F(LoadStep, ReadsThroughThePageCacheWhatCannotBeReadPastIt) {
  std::vector<char> odd(layout_.slot_bytes() + 4096);
  char* memory = odd.data() + 1;
  const Fd file(::open((step_.path + "/" + kModelFile).c_str(), O_RDONLY | O_DIRECT));
  if (!file || ::pread(file.get(), memory, 4096, 0) >= 0) GTEST_SKIP() << "this file system refuses nothing";
  ASSERT_EQ(errno, EINVAL);
  ASSERT_TRUE(load_step(step_, manifest_, layout_, memory, &slot_));
  const std::string bytes = read_text(step_.path + "/" + kModelFile);
  EXPECT_EQ(std::string(memory, bytes.size()), bytes);
}

TEST_F(LoadStep, StopsAtTheFirstTensorThatDoesNotVerify) {
  flip("training.safetensors", manifest_.files[1].bytes - 1);
  const auto status = load();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::damaged);
  EXPECT_THAT(status.error().message, HasSubstr("training.safetensors: tensor b does not match its digest"));
  EXPECT_LT(slot_.loaded, layout_.offset_of(1) + manifest_.files[1].bytes)
      << "the watermark passed what is damaged";
}

// Blocks that several threads read, tensors that begin and end in the middle of them.
TEST(LoadStepOfManyBlocks, VerifiesInOrderAndNamesTheDamagedTensor) {
  const TemporaryFolder folder;
  constexpr uint64_t kTensors = 9, kElements = 1'000'001;  // 36 MB
  std::vector<TensorInfo> tensors;
  for (uint64_t i = 0; i < kTensors; ++i)
    tensors.push_back(
        {fmt::format("t{}", i), "F32", {kElements}, i * kElements * 4, (i + 1) * kElements * 4});
  std::string text(kTensors * kElements * 4, '\0');
  for (size_t i = 0; i < text.size(); i += 64) text[i] = static_cast<char>(i / 64 % 61);
  const PageCopy data(text);
  StepImage image{.run = "test-run", .step = 3, .files = std::vector<FileImage>(1)};
  image.files[0] = {kModelFile, *build_header(tensors, {{"format", "pt"}}, 8192), {}, data.view().data()};
  image.files[0].table = *parse_header(image.files[0].header, 8192 + text.size());
  ASSERT_TRUE(save_step(folder.path(), image, {}));

  const StepFolder step{3, folder / "step-000000003"};
  const auto manifest = inspect_step(step);
  ASSERT_TRUE(manifest);
  const ArenaLayout layout = *layout_of(*manifest, 1);
  const PageCopy memory(std::string(layout.slot_bytes(), 'x'));
  bitctl_slot slot{};
  const auto load = [&] {
    slot.loaded = 0;
    return load_step(step, *manifest, layout, const_cast<char*>(memory.view().data()), &slot);
  };
  ASSERT_TRUE(load());
  EXPECT_EQ(slot.loaded, 8192 + text.size());
  EXPECT_EQ(memory.view().substr(8192, text.size()), text);

  const Fd file(::open((step.path + "/" + kModelFile).c_str(), O_WRONLY));
  for (const uint64_t broken : {8, 5, 1, 0}) {
    const auto at = static_cast<off_t>(8192 + tensors[broken].end - 1);
    ASSERT_EQ(::pwrite(file.get(), "y", 1, at), 1);
    const auto status = load();
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().message, HasSubstr(fmt::format("tensor t{} does not match", broken)));
    EXPECT_EQ(slot.loaded, 8192 + tensors[broken].begin);
  }
}

TEST_F(LoadStep, AFileThatIsCutIsDamage) {
  std::filesystem::resize_file(step_.path + "/model.safetensors", manifest_.files[0].bytes - 1);
  EXPECT_EQ(load().error().kind, ErrorKind::damaged);
}

TEST_F(LoadStep, WaitsForACommit) {
  const auto commit = FileLock::acquire(folder_ / ".lock", FileLock::Mode::exclusive, Duration::zero());
  EXPECT_EQ(load().error().kind, ErrorKind::locked);
}

}  // namespace
}  // namespace bitctl
