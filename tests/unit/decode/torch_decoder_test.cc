#include "decode/torch_decoder.h"

#include <gtest/gtest.h>

#include <cstring>

#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

// A table in the place of the module: it notes what it is given and answers by recipe.
struct Recorder {
  bool refuse = false;
  std::vector<std::string> tensors;
  void* owner = nullptr;
  void (*release)(void*) = nullptr;
  std::vector<int32_t> ids;
  size_t position = 0;
} recorder;

int open(const char*, const bitctl_tensor* tensors, size_t count, const bitctl_model_options* options,
         bitctl_model** model, bitctl_model_info* info, bitctl_engine_error* error) {
  for (size_t i = 0; i < count; ++i)
    recorder.tensors.push_back(
        fmt::format("{} {} {} {}", tensors[i].name, tensors[i].dtype, tensors[i].rank,
                    std::string(static_cast<const char*>(tensors[i].data), tensors[i].bytes)));
  if (recorder.refuse) {
    options->release(options->owner);
    std::strcpy(error->text, "no such model");
    return 1;
  }
  recorder.owner = options->owner;
  recorder.release = options->release;
  *info = {.vocab_size = 3, .max_context = 8, .device = "cpu", .dtype = "float32"};
  *model = reinterpret_cast<bitctl_model*>(&recorder);
  return 0;
}

int run(bitctl_model*, const int32_t* ids, size_t count, size_t position, float* logits,
        bitctl_engine_error* error) {
  recorder.ids.assign(ids, ids + count);
  recorder.position = position;
  std::strcpy(error->text, "out of memory");
  for (int i = 0; i < 3; ++i) logits[i] = static_cast<float>(i);
  return recorder.refuse ? 1 : 0;
}

void close(bitctl_model*) { recorder.release(recorder.owner); }

const bitctl_engine kTable{.abi = BITCTL_ENGINE_ABI,
                           .bytes = sizeof(bitctl_engine),
                           .torch_version = "none",
                           .check_tensors = nullptr,
                           .model_open = open,
                           .model_forward = run,
                           .model_close = close};

class TorchDecoderTest : public testing::Test {
 protected:
  TorchDecoderTest() {
    recorder = {};
    const std::vector<TensorInfo> tensors = {{"w", "U8", {2, 2}, 0, 4}};
    file_ = *TensorFile::open(folder_.write("model.safetensors", *build_header(tensors, {}) + "abcd"));
  }

  TemporaryFolder folder_;
  std::shared_ptr<const TensorFile> file_;
};

TEST_F(TorchDecoderTest, HandsTheTensorsOverAndKeepsThemWhileItLives) {
  std::weak_ptr<const TensorFile> watched = file_;
  auto decoder = open_torch_decoder(&kTable, "{}", {std::move(file_)});
  ASSERT_TRUE(decoder);
  EXPECT_EQ(recorder.tensors, std::vector<std::string>{"w U8 2 abcd"});
  EXPECT_EQ((*decoder)->info().implementation, "torch");
  EXPECT_EQ((*decoder)->info().max_context, 8);
  EXPECT_FALSE(watched.expired());
  decoder->reset();
  EXPECT_TRUE(watched.expired());
}

TEST_F(TorchDecoderTest, TakesTheTensorsOfAllParts) {
  const auto part = *TensorFile::open(
      folder_.write("more.safetensors", *build_header({{"v", "U8", {3}, 0, 3}}, {}) + "efg"));
  const auto decoder = open_torch_decoder(&kTable, "{}", {file_, part});
  ASSERT_TRUE(decoder);
  EXPECT_EQ(recorder.tensors, (std::vector<std::string>{"v U8 1 efg", "w U8 2 abcd"}));
  const auto twice = open_torch_decoder(&kTable, "{}", {file_, part, file_});
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().message, file_->path() + ": tensor w is in another part, too");
}

TEST_F(TorchDecoderTest, ARefusedModelLetsGoOfTheFile) {
  recorder.refuse = true;
  std::weak_ptr<const TensorFile> watched = file_;
  const auto decoder = open_torch_decoder(&kTable, "{}", {std::move(file_)});
  ASSERT_FALSE(decoder);
  EXPECT_EQ(decoder.error().message, "no such model");
  EXPECT_TRUE(watched.expired());
}

TEST_F(TorchDecoderTest, RunsIdsAndPassesErrorsOn) {
  const auto decoder = open_torch_decoder(&kTable, "{}", {file_});
  ASSERT_TRUE(decoder);
  std::vector<float> logits(3);
  EXPECT_TRUE((*decoder)->forward(std::vector<int32_t>{5, 6}, 4, logits));
  EXPECT_EQ(recorder.ids, (std::vector<int32_t>{5, 6}));
  EXPECT_EQ(recorder.position, 4u);
  EXPECT_EQ(logits, (std::vector<float>{0, 1, 2}));
  recorder.refuse = true;
  EXPECT_EQ((*decoder)->forward(std::vector<int32_t>{5}, 6, logits).error().message, "out of memory");
  std::vector<float> too_few(2);
  EXPECT_EQ((*decoder)->forward(std::vector<int32_t>{5}, 6, too_few).error().message,
            "room for 2 logits, the vocabulary has 3");
}

}  // namespace
}  // namespace bitctl
