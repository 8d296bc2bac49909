// The only file that knows FAISS.
#include "memory/faiss_index.h"

#include <faiss/AutoTune.h>
#include <faiss/IVFlib.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexNSG.h>
#include <faiss/IndexPQ.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/impl/FaissException.h>
#include <faiss/impl/io.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels/error.h"

extern "C" void openblas_set_num_threads(int threads);

namespace memlane {

namespace {

/// FAISS's own rule for k-means: with fewer points per centroid it warns and the centroids are poor.
constexpr std::size_t kPointsPerCentroid = 39;

/// FAISS runs inside the project's threads, so its own (OpenMP) and its BLAS's are held to one each: pools that spin
/// against each other are many times slower. The setting is per thread for OpenMP, global for OpenBLAS.
void use_one_thread() {
  omp_set_num_threads(1);
  static const bool blas_done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(blas_done);
}

/// One line of what FAISS says, without the place in its source: "Error in FUNCTION at FILE.cpp:LINE: " and "Error:
/// 'CONDITION' failed: ".
std::string reason(const std::exception& error) {
  std::string text = error.what();
  if (const std::size_t file = text.rfind(".cpp:"); file != std::string::npos) {
    if (const std::size_t end = text.find(": ", file + 5); end != std::string::npos) text = text.substr(end + 2);
  }
  if (const std::size_t at = text.rfind("failed: "); at != std::string::npos) text = text.substr(at + 8);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

/// Centroids that training the index has to place.
std::size_t centroids(const faiss::Index& index) {
  if (const auto* transformed = dynamic_cast<const faiss::IndexPreTransform*>(&index))
    return centroids(*transformed->index);
  if (const auto* refined = dynamic_cast<const faiss::IndexRefine*>(&index)) return centroids(*refined->base_index);
  if (const auto* ivfpq = dynamic_cast<const faiss::IndexIVFPQ*>(&index)) return std::max(ivfpq->nlist, ivfpq->pq.ksub);
  if (const auto* ivf = dynamic_cast<const faiss::IndexIVF*>(&index)) return ivf->nlist;
  if (const auto* pq = dynamic_cast<const faiss::IndexPQ*>(&index)) return pq->pq.ksub;
  return 256;  // scalar quantisers and the like learn ranges, not centroids: some thousands of keys are plenty
}

/// Why an index that FAISS makes cannot serve as a key index; empty if it can. FAISS finds out later, or crashes.
std::string fault(const faiss::Index& index) {
  if (index.metric_type != faiss::METRIC_INNER_PRODUCT) return "it does not search by inner product";
  if (const auto* transformed = dynamic_cast<const faiss::IndexPreTransform*>(&index)) {
    for (const faiss::VectorTransform* step : transformed->chain) {
      if (dynamic_cast<const faiss::PCAMatrix*>(step) != nullptr && step->d_out > step->d_in) {
        return "PCA cannot give more dimensions than there are";
      }
    }
    return fault(*transformed->index);
  }
  if (const auto* refined = dynamic_cast<const faiss::IndexRefine*>(&index)) return fault(*refined->base_index);
  if (dynamic_cast<const faiss::IndexIDMap*>(&index) != nullptr) return "its ids are not the entries' places";
  if (dynamic_cast<const faiss::IndexNSG*>(&index) != nullptr) return "it cannot grow";
  const auto* hnsw = dynamic_cast<const faiss::IndexHNSW*>(&index);
  // With fewer than 2 neighbours FAISS lays out no levels at all, not even those that it reads.
  if (hnsw != nullptr && (hnsw->hnsw.cum_nneighbor_per_level.size() < 3 || hnsw->hnsw.nb_neighbors(1) < 2)) {
    return "HNSW needs 2 neighbours or more";
  }
  return "";
}

/// Spares a PQ the training that FAISS adds for searching by Hamming distance, which memory never does: minutes for
/// nothing.
void skip_polysemous_training(faiss::Index& index) {
  if (auto* transformed = dynamic_cast<faiss::IndexPreTransform*>(&index))
    return skip_polysemous_training(*transformed->index);
  if (auto* refined = dynamic_cast<faiss::IndexRefine*>(&index)) return skip_polysemous_training(*refined->base_index);
  if (auto* pq = dynamic_cast<faiss::IndexPQ*>(&index)) pq->do_polysemous_training = false;
}

/// The lists to search in by default in an IVF index: FAISS's own default, one, finds next to nothing.
constexpr std::size_t kDefaultProbes = 16;
constexpr std::size_t kMostProbes = 1U << 30;

class FaissIndex : public KeyIndex {
 public:
  FaissIndex(std::unique_ptr<faiss::Index> index, const Lookup& lookup) : index_(std::move(index)) {
    faiss::IndexIVF* ivf = faiss::ivflib::try_extract_index_ivf(index_.get());
    if (ivf != nullptr && ivf->nlist == 0) input_error("index '{}': expected at least one list", lookup.factory);
    if (ivf != nullptr) ivf->nprobe = std::min(kDefaultProbes, ivf->nlist);
    if (lookup.parameters.empty()) return;
    try {
      faiss::ParameterSpace().set_index_parameters(index_.get(), lookup.parameters.c_str());
    } catch (const std::exception& error) {
      input_error(
          "index parameters '{}': FAISS does not take them for '{}' ({}); use for example nprobe=16 or efSearch=64",
          lookup.parameters, lookup.factory, reason(error));
    }
    if (ivf != nullptr &&
        (ivf->nprobe < 1 || ivf->nprobe > kMostProbes)) {  // a negative number comes out as a huge one
      input_error("index parameters '{}': expected nprobe from 1 to {}", lookup.parameters, kMostProbes);
    }
  }

  std::size_t training_size() const override {
    return index_->is_trained ? 0 : kPointsPerCentroid * centroids(*index_);
  }

  void train(View<const float, 2> keys) override {
    use_one_thread();
    translated("train", [&] { index_->train(static_cast<faiss::Index::idx_t>(keys.extent(0)), keys.data()); });
  }

  void update(const MicroKernels&, const EntryRows& entries, const Watch& watch) override {
    use_one_thread();
    const std::size_t n = entries.size() - size();
    std::vector<float> keys(n * entries.head_dim());
    entries.read_keys(size(), entries.size(), keys.data());
    translated("add keys", [&] { index_->add(static_cast<faiss::Index::idx_t>(n), keys.data()); });
    watch(n);
  }

  std::size_t size() const override { return static_cast<std::size_t>(index_->ntotal); }

  void search(View<const float, 2> queries, View<std::int64_t, 2> ids) const override {
    use_one_thread();
    std::fill_n(ids.data(), ids.size(), -1);
    // Asked for more neighbours than it has, FAISS may list padding; the rows are then filled to what there is.
    const std::size_t k = std::min(ids.extent(1), size());
    if (k == 0 || queries.extent(0) == 0) return;
    std::vector<float> scores(queries.extent(0) * k);
    std::vector<faiss::Index::idx_t> found(scores.size());
    translated("search", [&] {
      index_->search(static_cast<faiss::Index::idx_t>(queries.extent(0)), queries.data(),
                     static_cast<faiss::Index::idx_t>(k), scores.data(), found.data());
    });
    for (std::size_t query = 0; query < queries.extent(0); ++query) {
      std::copy_n(found.begin() + static_cast<std::ptrdiff_t>(query * k), k, ids.data() + query * ids.extent(1));
    }
  }

  std::vector<std::byte> save() const override {
    faiss::VectorIOWriter writer;
    translated("save", [&] { faiss::write_index(index_.get(), &writer); });
    std::vector<std::byte> bytes(writer.data.size());
    std::memcpy(bytes.data(), writer.data.data(), bytes.size());
    return bytes;
  }

 private:
  template <class Call>
  static void translated(std::string_view what, const Call& call) {
    try {
      call();
    } catch (const faiss::FaissException& error) {
      input_error("index: FAISS could not {} ({}); use another --index, or exact", what, reason(error));
    }
  }

  std::unique_ptr<faiss::Index> index_;
};

}  // namespace

std::unique_ptr<KeyIndex> make_faiss_index(const Lookup& lookup, std::size_t head_dim) {
  std::unique_ptr<faiss::Index> index;
  try {
    index.reset(faiss::index_factory(static_cast<int>(head_dim), lookup.factory.c_str(), faiss::METRIC_INNER_PRODUCT));
  } catch (const std::exception& error) {
    input_error(
        "index '{}': not dense, exact, int8, ivf or auto, and FAISS rejects it for keys of {} dimensions ({}); use for "
        "example Flat, "
        "IVF256,Flat or HNSW32",
        lookup.factory, head_dim, reason(error));
  }
  if (const std::string why = fault(*index); !why.empty()) {
    input_error(
        "index '{}': cannot index memory keys of {} dimensions ({}); use for example Flat, IVF256,Flat or HNSW32",
        lookup.factory, head_dim, why);
  }
  skip_polysemous_training(*index);
  return std::make_unique<FaissIndex>(std::move(index), lookup);
}

std::unique_ptr<KeyIndex> load_faiss_index(const Lookup& lookup, std::size_t head_dim,
                                           std::span<const std::byte> bytes) {
  faiss::VectorIOReader reader;
  reader.data.resize(bytes.size());
  if (!bytes.empty()) std::memcpy(reader.data.data(), bytes.data(), bytes.size());
  std::unique_ptr<faiss::Index> index;
  try {
    index.reset(faiss::read_index(&reader));
  } catch (const std::exception& error) {
    input_error("stored index: FAISS cannot read it ({}); ask with --index exact, or ingest again", reason(error));
  }
  if (index->d != static_cast<int>(head_dim) || index->metric_type != faiss::METRIC_INNER_PRODUCT) {
    input_error("stored index: expected {} dimensions and inner products, found {} dimensions; ingest again", head_dim,
                index->d);
  }
  return std::make_unique<FaissIndex>(std::move(index), lookup);
}

}  // namespace memlane
