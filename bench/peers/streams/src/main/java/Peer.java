import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The same detector on Kafka Streams: a window is a value of a RocksDB store with its changelog.
 *
 * <p>usage: Peer BOOTSTRAP INPUT OUTPUT EVENTS DIRECTORY default|exactly_once|cached
 */
public final class Peer {
  static final int SIZE = 100;
  static final int MIN_SAMPLES = 30;
  static final double THRESHOLD = 3.0;
  static final AtomicLong SEEN = new AtomicLong();

  public static void main(String[] args) throws Exception {
    String output = args[2];
    long events = Long.parseLong(args[3]);
    String mode = args[5];
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, output);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, args[4]);
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
    if (!mode.equals("default")) {
      settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    }
    if (mode.equals("cached")) {
      settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
    }
    var store =
        Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("windows"), Serdes.String(), Serdes.ByteArray());
    Topology topology = new Topology();
    topology.addSource(
        "events",
        Serdes.ByteArray().deserializer(),
        Serdes.ByteArray().deserializer(),
        args[1]);
    topology.addProcessor("judge", Judge::new, "events");
    topology.addStateStore(mode.equals("cached") ? store.withCachingEnabled() : store, "judge");
    topology.addSink(
        "anomalies",
        output,
        Serdes.ByteArray().serializer(),
        Serdes.ByteArray().serializer(),
        "judge");
    KafkaStreams streams = new KafkaStreams(topology, settings);
    CountDownLatch failed = new CountDownLatch(1);
    streams.setUncaughtExceptionHandler(
        e -> {
          e.printStackTrace();
          failed.countDown();
          return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler
              .StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
    streams.start();
    while (SEEN.get() < events && failed.getCount() > 0) {
      Thread.sleep(50);
    }
    streams.close(Duration.ofMinutes(1));
    try (var files = Files.walk(Path.of(args[4]))) {
      files.sorted(Comparator.reverseOrder()).forEach(path -> path.toFile().delete());
    }
    System.exit(failed.getCount() > 0 ? 0 : 1);
  }

  static final class Judge implements Processor<byte[], byte[], byte[], byte[]> {
    private final ObjectMapper json = new ObjectMapper();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, byte[]> windows;

    @Override
    public void init(ProcessorContext<byte[], byte[]> given) {
      context = given;
      windows = given.getStateStore("windows");
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      try {
        JsonNode event = json.readTree(record.value());
        JsonNode metric = event.path("metric_name");
        String key = event.get("device_id").asText() + '\0' + metric.asText("");
        double value = event.get("metric_value").asDouble();
        // Oldest first.
        byte[] stored = windows.get(key);
        int count = stored == null ? 0 : stored.length / Double.BYTES;
        ByteBuffer window = ByteBuffer.wrap(stored == null ? new byte[0] : stored);
        if (count >= MIN_SAMPLES) {
          double mean = 0;
          for (int i = 0; i < count; i++) {
            mean += window.getDouble(i * Double.BYTES);
          }
          mean /= count;
          double square = 0;
          for (int i = 0; i < count; i++) {
            double d = window.getDouble(i * Double.BYTES) - mean;
            square += d * d;
          }
          double deviation = Math.sqrt(square / count);
          if (Math.abs(value - mean) > THRESHOLD * deviation) {
            RecordMetadata place = context.recordMetadata().orElseThrow();
            ObjectNode anomaly = (ObjectNode) event;
            anomaly.put("mean", mean).put("std_dev", deviation);
            anomaly.put("partition", place.partition()).put("offset", place.offset());
            context.forward(record.withValue(json.writeValueAsBytes(anomaly)));
          }
        }
        int skipped = count < SIZE ? 0 : Double.BYTES;
        ByteBuffer next = ByteBuffer.allocate(Math.min(count + 1, SIZE) * Double.BYTES);
        if (stored != null) {
          next.put(stored, skipped, stored.length - skipped);
        }
        windows.put(key, next.putDouble(value).array());
      } catch (java.io.IOException e) {
        // Not an event.
      }
      SEEN.incrementAndGet();
    }
  }
}
