// Work that is recorded and launched again, with numbers that it finds on the device.

#include <functional>

#include "kernels/cuda/graph.h"
#include "tests/kernels/cuda/cuda_fixture.h"

namespace memlane::testing {
namespace {

class CudaReplay : public CudaTest {
 protected:
  void place(CudaBuffer<std::uint32_t>& on_device, std::uint32_t number) {
    detail::copy_to_device(exec(), on_device.data(), &number, sizeof number);
    exec().synchronize();
  }

  reference::Random random_{11};
};

TEST_F(CudaReplay, ReadsAnewWhatIsInMemory) {
  constexpr std::size_t kWidth = 300, kRoom = 20;
  CudaBuffer<std::uint32_t> at = on_gpu(std::vector<std::uint32_t>{0});
  CudaBuffer<float> row = poisoned(kWidth), rows = poisoned(kRoom * kWidth);
  std::vector<float> expected(kRoom * kWidth, NAN);
  PinnedBuffer<float> from(kWidth), to(kRoom * kWidth);
  CudaGraph graph(exec());
  graph.begin();
  detail::copy_from_pinned(exec(), row.data(), from.data(), from.bytes());
  append_rows(exec(), row.view<2>({1, kWidth}), rows.view<2>({kRoom, kWidth}), {5, at.data()});
  detail::copy_to_pinned(exec(), to.data(), rows.data(), rows.bytes());
  graph.end();
  const std::vector<float> untouched = back(rows);
  for (const float x : untouched) ASSERT_TRUE(std::isnan(x)) << "what is recorded is not run";
  for (const std::uint32_t position : {3U, 0U, 19U, 3U}) {
    const std::vector<float> values = random_.floats(kWidth);
    std::copy(values.begin(), values.end(), from.data());
    std::copy(values.begin(), values.end(), expected.begin() + static_cast<std::ptrdiff_t>(position * kWidth));
    place(at, position);
    graph.launch();
    exec().synchronize();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (std::isnan(expected[i])) {
        ASSERT_TRUE(std::isnan(to.data()[i])) << i;
      } else {
        ASSERT_EQ(to.data()[i], expected[i]) << i;
      }
    }
  }
}

TEST_F(CudaReplay, HasTheSameBitsLaunchedForTheWholeWindow) {
  CudaBuffer<std::uint32_t> on_device = on_gpu(std::vector<std::uint32_t>{0});
  for (const std::size_t head_dim : {32, 64, 100, 128}) {
    constexpr std::size_t kRoom = 9000, kHeads = 4;
    const RandomEntries entries(random_, 2, head_dim, {kRoom}, DType::bf16);
    const CudaEntriesCopy copy(exec(), entries.blocks(), head_dim);
    const CudaBuffer<float> queries = on_gpu(random_.floats(kHeads * head_dim, 2));
    const auto attended = [&](std::uint32_t held, const std::uint32_t* found) {
      cuda::Entries cache = copy.entries();
      cache.limit = held + 1;
      cache.tiles = cuda::tiles_for(held + 1);
      cache.held = {found, held, kRoom};
      CudaOwnedPartial partial(exec(), 1, kHeads, head_dim);
      attend(exec(), queries.view<3>({1, kHeads, head_dim}), cache, 0.1F, Visibility::causal_from(held),
             partial.view());
      return partial.on_host(exec());
    };
    for (const std::uint32_t held : {0U, 1U, 63U, 64U, 255U, 256U, 1000U, 4095U, 8999U}) {
      place(on_device, held);
      EXPECT_TRUE(attended(held, on_device.data()).same_bits_as(attended(held, nullptr)))
          << held << " entries, head_dim " << head_dim;
    }
  }
}

TEST_F(CudaReplay, RefusesWhatCannotBeRecordedAndGoesOnWithoutAGraph) {
  CudaBuffer<float> x = on_gpu(std::vector<float>(100, 1)), y = on_gpu(std::vector<float>(100, 2));
  std::vector<float> host(100);
  const std::vector<std::function<void()>> refused = {
      [&] { exec().synchronize(); },
      [&] { exec().scratch(std::size_t{1} << 28); },
      [&] { detail::copy_to_device(exec(), x.data(), host.data(), x.bytes()); },
      [&] { detail::copy_to_host(exec(), host.data(), x.data(), x.bytes()); },
      [&] { CudaBuffer<float>(std::size_t{1} << 20); },
  };
  float expected = 1;
  for (const auto& work : refused) {
    CudaGraph graph(exec());
    graph.begin();
    add(exec(), x.view<2>({1, 100}), y.view<2>({1, 100}));
    EXPECT_THROW(work(), DeviceError);
    graph.forget();
    add(exec(), x.view<2>({1, 100}), y.view<2>({1, 100}));
    expected += 2;
    for (const float element : back(x)) ASSERT_EQ(element, expected);
  }
}

}  // namespace
}  // namespace memlane::testing
