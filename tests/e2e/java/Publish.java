import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** The JDK's own client, as it comes: it asks for h2c with every request in clear text. */
public class Publish {
    private static final Duration PATIENCE = Duration.ofSeconds(10);

    public static void main(String[] arguments) throws Exception {
        URI url = URI.create(arguments[0]);
        HttpClient client = HttpClient.newBuilder().connectTimeout(PATIENCE).build();
        byte[] request = "DELETE /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".getBytes();
        byte[] large = new byte[3_000_000];
        for (int i = 0; i < large.length; i++) {
            large[i] = (byte) i;
        }
        for (byte[] body : List.of(request, large, new byte[] {1}, new byte[0])) {
            echo(client, url, "length", BodyPublishers.ofByteArray(body), body);
            echo(client, url, "chunked", BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body)), body);
        }
        List<CompletableFuture<HttpResponse<byte[]>>> waiting = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            BodyPublisher body = BodyPublishers.ofString("message " + i);
            waiting.add(client.sendAsync(request(url, body), BodyHandlers.ofByteArray()));
        }
        for (int i = 0; i < 50; i++) {
            check("parallel " + i, waiting.get(i).get(), ("message " + i).getBytes());
        }
        System.out.println("done");
        System.exit(0);
    }

    private static HttpRequest request(URI url, BodyPublisher body) {
        return HttpRequest.newBuilder(url).timeout(PATIENCE).POST(body).build();
    }

    private static void echo(HttpClient client, URI url, String framing, BodyPublisher publisher, byte[] body)
            throws Exception {
        check(framing + " " + body.length, client.send(request(url, publisher), BodyHandlers.ofByteArray()), body);
    }

    private static void check(String what, HttpResponse<byte[]> response, byte[] body) {
        if (response.statusCode() != 200 || !Arrays.equals(response.body(), body)) {
            System.out.println(what + ": " + response.statusCode() + ", " + response.body().length + " bytes");
            System.exit(1);
        }
        System.out.println(what + " " + response.version());
    }
}
